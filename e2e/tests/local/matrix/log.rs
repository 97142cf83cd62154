//! The proxies' access logs, in the default format of text: what each hop says about a request.

use serde_json::{Value, json};

/// One line, by the place of its fields in the format.
pub struct Line<'a> {
    fields: Vec<&'a str>,
}

/// Where they are.
const CODE: usize = 2;
const FLAGS: usize = 3;
const AGENT: usize = 12;
const CLUSTER: usize = 16;
const SNI: usize = 20;
const ROUTE: usize = 21;

impl<'a> Line<'a> {
    /// A line of something else is none.
    pub fn parse(line: &'a str) -> Option<Self> {
        let mut fields = Vec::new();
        let mut rest = line.trim();
        while !rest.is_empty() {
            let (field, after) = match rest.as_bytes()[0] {
                b'"' => rest[1..].split_once('"')?,
                b'[' => rest[1..].split_once(']')?,
                _ => rest.split_once(' ').unwrap_or((rest, "")),
            };
            fields.push(field);
            rest = after.trim_start();
        }
        (fields.len() > ROUTE).then_some(Self { fields })
    }

    pub fn agent(&self) -> &'a str {
        self.fields[AGENT]
    }

    pub fn cluster(&self) -> &'a str {
        self.fields[CLUSTER]
    }

    /// What must be the same whoever has written it.
    pub fn told(&self) -> Value {
        // A set: each writes them in its own order.
        let mut flags: Vec<&str> = self.fields[FLAGS].split(',').collect();
        flags.sort_unstable();
        json!({
            "code": self.fields[CODE],
            "flags": flags.join(","),
            "cluster": self.fields[CLUSTER],
            "sni": self.fields[SNI],
            "route": self.fields[ROUTE],
        })
    }
}
