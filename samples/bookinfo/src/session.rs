//! Who is signed in. The cookie `session` carries the name, in base64 so that any name fits. Nothing is proven (the sample has
//! no passwords, as Istio's): who signs in as jason is jason. A real shop would sign it.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, header};

const COOKIE: &str = "session";

/// The signed-in user, if the request carries a session with a usable name.
pub fn user(headers: &HeaderMap) -> Option<String> {
    let cookies = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let value = cookies
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)?
        .1;
    let name = String::from_utf8(URL_SAFE_NO_PAD.decode(value).ok()?).ok()?;
    usable(&name).then_some(name)
}

/// A name that can travel in a header and stand on a page.
pub fn usable(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-@+".contains(&b))
}

/// The `Set-Cookie` that signs `name` in.
pub fn sign_in(name: &str) -> String {
    format!(
        "{COOKIE}={}; Path=/; HttpOnly; SameSite=Lax",
        URL_SAFE_NO_PAD.encode(name)
    )
}

/// The `Set-Cookie` that signs out.
pub fn sign_out() -> String {
    format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_sign_in_sets_user_reads() {
        let cookie = sign_in("jason");
        let pair = cookie.split(';').next().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(
            header::COOKIE,
            HeaderValue::from_str(&format!("theme=dark; {pair}")).unwrap(),
        );
        assert_eq!(user(&headers).as_deref(), Some("jason"));
    }

    #[test]
    fn nonsense_is_nobody() {
        for value in ["session=%%%", "session=", "other=amFzb24", "session=PHNjcmlwdD4"] {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, HeaderValue::from_str(value).unwrap());
            assert_eq!(user(&headers), None, "{value}");
        }
        assert!(!usable("a b") && !usable("") && !usable("x\r\ny"));
    }
}
