//! The pages as HTML: everything inline, so that a page is one request. Every text that comes from outside is escaped.

use super::{Part, Problem};
use serde_json::Value;
use std::fmt::Write;

const STYLE: &str = include_str!("style.css");

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn document(title: &str, user: Option<&str>, main: &str) -> String {
    let account = match user {
        Some(user) => {
            format!("<span class=\"who\">{}</span><a class=\"button\" href=\"/logout\">Sign out</a>", escape(user))
        }
        None => "<form action=\"/login\" method=\"post\">\
                 <input name=\"username\" placeholder=\"User name\" aria-label=\"User name\" required maxlength=\"64\">\
                 <button class=\"button\">Sign in</button></form>"
            .to_owned(),
    };
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <link rel=\"icon\" href=\"data:,\"><title>{title}</title><style>{STYLE}</style></head>\n\
         <body><header><a class=\"brand\" href=\"/\">Bookinfo <small>sample</small></a><nav>{account}</nav></header>\n\
         <main>{main}</main>\n\
         <footer>Four services, each with a proxy beside it. Reload to see the mesh at work.</footer></body></html>\n"
    )
}

/// `/`: what this is and where to go.
pub fn front() -> String {
    let main = "<section class=\"hero\"><h1>Bookinfo</h1>\
        <p>A bookshop with one book, made of four small services. What you see on its page depends on how the mesh between \
        them is configured, and nothing in the services changes for that.</p>\
        <p><a class=\"button\" href=\"/productpage\">To the book</a></p></section>\
        <section class=\"card\"><h2>As data</h2><ul class=\"links\">\
        <li><a href=\"/api/v1/products\">/api/v1/products</a></li>\
        <li><a href=\"/api/v1/products/0\">/api/v1/products/0</a></li>\
        <li><a href=\"/api/v1/products/0/reviews\">/api/v1/products/0/reviews</a></li>\
        <li><a href=\"/api/v1/products/0/ratings\">/api/v1/products/0/ratings</a></li></ul></section>";
    document("Bookinfo", None, main)
}

/// `/productpage`
pub fn product(product: &Value, user: Option<&str>, details: &Part, reviews: &Part) -> String {
    let title = product["title"].as_str().unwrap_or_default();
    let text = product["descriptionHtml"].as_str().unwrap_or_default();
    let mut main = format!(
        "<section class=\"hero book\"><div class=\"cover\" aria-hidden=\"true\"><span>The<br>Comedy<br>of<br>Errors</span></div>\
         <div><h1>{}</h1><p>{text}</p></div></section><div class=\"columns\">",
        escape(title)
    );
    main.push_str(&details_card(details));
    main.push_str(&reviews_card(reviews));
    main.push_str("</div>");
    document("Simple Bookstore App", user, &main)
}

fn details_card(part: &Part) -> String {
    let body = match &part.answer {
        Ok(details) => {
            let mut rows = String::new();
            for (name, key) in [
                ("Author", "author"),
                ("Year", "year"),
                ("Type", "type"),
                ("Pages", "pages"),
                ("Publisher", "publisher"),
                ("Language", "language"),
                ("ISBN-10", "ISBN-10"),
                ("ISBN-13", "ISBN-13"),
            ] {
                let value = match &details[key] {
                    Value::String(text) => escape(text),
                    Value::Null => continue,
                    other => escape(&other.to_string()),
                };
                let _ = write!(rows, "<dt>{name}</dt><dd>{value}</dd>");
            }
            format!("<dl>{rows}</dl>")
        }
        Err(problem) => error("Error fetching product details!", problem),
    };
    card("details", "Book Details", part, &body)
}

fn reviews_card(part: &Part) -> String {
    let body = match &part.answer {
        Ok(answer) => {
            let mut body = String::new();
            for review in answer["reviews"].as_array().into_iter().flatten() {
                let _ = write!(
                    body,
                    "<blockquote><p>{}</p><footer><cite>{}</cite>{}</footer></blockquote>",
                    escape(review["text"].as_str().unwrap_or_default()),
                    escape(review["reviewer"].as_str().unwrap_or_default()),
                    stars(&review["rating"]),
                );
            }
            let pod = escape(answer["podname"].as_str().unwrap_or("unknown"));
            let _ = write!(
                body,
                "<p class=\"served\">Reviews served by: <b id=\"reviews-pod\">{pod}</b></p>"
            );
            body
        }
        Err(problem) => error("Error fetching product reviews!", problem),
    };
    card("reviews", "Book Reviews", part, &body)
}

/// The stars of one review: none (v1), filled and empty ones in the colour that came, or why there are none.
fn stars(rating: &Value) -> String {
    if let Some(error) = rating["error"].as_str() {
        let reason = rating["reason"]
            .as_str()
            .map(|reason| format!(" ({reason})"))
            .unwrap_or_default();
        return format!(
            "<span class=\"nostars\">{}{}</span>",
            escape(error),
            escape(&reason)
        );
    }
    let Some(n) = rating["stars"].as_u64() else {
        return String::new();
    };
    let n = n.min(5) as usize;
    let color = match rating["color"].as_str() {
        Some("red") => "red",
        _ => "black",
    };
    format!(
        "<span class=\"stars {color}\" aria-label=\"{n} of 5 stars\">{}<i>{}</i></span>",
        "\u{2605}".repeat(n),
        "\u{2606}".repeat(5 - n)
    )
}

fn error(title: &str, problem: &Problem) -> String {
    format!(
        "<div class=\"error\" role=\"alert\"><h3>{title}</h3><p>{}</p><p class=\"reason\">{}</p></div>",
        escape(&problem.text),
        escape(&problem.reason)
    )
}

fn card(id: &str, title: &str, part: &Part, body: &str) -> String {
    let took = part.took.as_secs_f64();
    let took = if took < 1.0 {
        format!("{:.0} ms", took * 1000.0)
    } else {
        format!("{took:.1} s")
    };
    format!("<section class=\"card\" id=\"{id}\"><h2>{title}<small>{took}</small></h2>{body}</section>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;
    use serde_json::json;
    use std::time::Duration;

    fn part(answer: Result<Value, Problem>) -> Part {
        Part {
            answer,
            took: Duration::from_millis(12),
        }
    }

    fn page(reviews: Part) -> String {
        product(
            &json!({ "title": "T", "descriptionHtml": "D" }),
            Some("jason"),
            &part(Ok(json!({ "author": "A&B" }))),
            &reviews,
        )
    }

    #[test]
    fn black_and_red_stars_and_none() {
        let review = |rating: Value| {
            part(Ok(
                json!({ "podname": "p", "reviews": [{ "reviewer": "R", "text": "x", "rating": rating }] }),
            ))
        };
        assert!(
            page(review(json!({ "stars": 4, "color": "black" })))
                .contains("stars black\" aria-label=\"4 of 5 stars")
        );
        assert!(page(review(json!({ "stars": 5, "color": "red" }))).contains("stars red"));
        assert!(!page(review(Value::Null)).contains("of 5 stars"));
        assert!(page(review(json!({ "error": "no ratings" }))).contains("no ratings"));
    }

    #[test]
    fn a_missing_part_says_so_and_the_rest_stays() {
        let problem = Problem {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            text: "Sorry".into(),
            reason: "no answer within 3 s".into(),
        };
        let page = page(part(Err(problem)));
        assert!(page.contains("Error fetching product reviews!") && page.contains("no answer within 3 s"));
        assert!(page.contains("A&amp;B"));
    }

    #[test]
    fn what_comes_from_outside_is_escaped() {
        let page = page(part(Ok(json!({ "podname": "<script>", "reviews": [] }))));
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"));
    }
}
