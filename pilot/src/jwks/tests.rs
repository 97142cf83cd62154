//! Sources come and go, answers change, servers fail; over a real socket where there is one.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

const KEYS: &str = keys::NOBODYS;

fn keeper() -> Keeper {
    Keeper::new(mpsc::channel(1).0, Arc::new(Web::new()))
}

fn uri(name: &str) -> KeySource {
    KeySource::Uri(format!("http://{name}/keys"))
}

fn failure() -> FetchError {
    FetchError::Url("x".into())
}

#[test]
fn what_is_told() {
    let (mut keeper, now) = (keeper(), Instant::now());
    let key = || [ObjectKey::new("ns", "a")].into_iter();
    assert_eq!(keeper.want([uri("a"), uri("b")].into_iter(), now), vec![]);
    let told = keeper.take(uri("a"), Ok(KEYS.into()), key(), now);
    assert!(matches!(&told[0], Change::Keys { keys: Some(keys), .. } if &**keys == KEYS));
    assert_eq!(
        keeper.take(uri("a"), Ok(KEYS.into()), key(), now),
        vec![],
        "as before"
    );
    assert_eq!(keeper.sources[&uri("a")].due, now + REFRESH);

    // A failure takes nothing away; it is told once.
    let told = keeper.take(uri("a"), Err(failure()), key(), now);
    let [Change::Findings { findings, .. }] = &told[..] else {
        panic!("{told:?}");
    };
    assert!(findings[0].is_error() && findings[0].text.contains("http://a/keys"));
    assert_eq!(findings[0].object.to_string(), "RequestAuthentication ns/a");
    assert_eq!(keeper.take(uri("a"), Err(failure()), key(), now), vec![]);
    assert!(keeper.sources[&uri("a")].due < now + LONGEST_RETRY);

    let gone = keeper.want([uri("b")].into_iter(), now);
    assert!(matches!(&gone[0], Change::Keys { keys: None, source } if *source == uri("a")));
    assert_eq!(
        keeper.take(uri("a"), Ok(KEYS.into()), key(), now),
        vec![],
        "nobody asks any more"
    );
}

/// Answers every request for a path with a text.
async fn server(pages: Vec<(&'static str, String)>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = vec![0; 4096];
            let length = stream.read(&mut buffer).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let answer = match pages.iter().find(|(known, _)| *known == path) {
                Some((_, text)) => {
                    let text = text.replace("HERE", &address.to_string());
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len())
                }
                None => "HTTP/1.1 302 Found\r\nlocation: /keys\r\ncontent-length: 0\r\n\r\n".to_owned(),
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn asks_real_servers() {
    let description = r#"{"issuer": "x", "jwks_uri": "http://HERE/keys"}"#;
    let address = server(vec![
        ("/keys", KEYS.to_owned()),
        ("/.well-known/openid-configuration", description.to_owned()),
        ("/large", " ".repeat(fetch::MAX_BYTES + 1)),
    ])
    .await;
    let web = Web::new();
    let at = |path: &str| KeySource::Uri(format!("http://{address}{path}"));
    assert_eq!(web.keys(&at("/keys")).await, Ok(KEYS.into()));
    let issuer = KeySource::Issuer(format!("http://{address}/"));
    assert_eq!(web.keys(&issuer).await, Ok(KEYS.into()));
    for (source, expect) in [
        (at("/moved"), "redirects are not followed"),
        (at("/large"), "more than"),
        (KeySource::Uri("nonsense".into()), "is not a URL"),
        (
            KeySource::Uri("http://127.0.0.1:1/keys".into()),
            "no connection to 127.0.0.1:1",
        ),
        (KeySource::Uri(format!("https://{address}/keys")), "TLS"),
    ] {
        let error = web.keys(&source).await.unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    }
}
