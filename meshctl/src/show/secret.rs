//! Secrets: the certificates a proxy holds and until when they are good. From `/certs`; the keys never leave the proxy.

use serde_json::Value;
use time::OffsetDateTime;

use super::text;
use crate::{local::moment, output::Table};

pub fn table(certificates: &Value, now: OffsetDateTime) -> Table {
    let mut table = Table::new(&[
        "NAME",
        "TYPE",
        "VALID CERT",
        "SERIAL NUMBER",
        "NOT AFTER",
        "NOT BEFORE",
    ]);
    for entry in certificates["certificates"].as_array().into_iter().flatten() {
        for (field, kind) in [("cert_chain", "Cert Chain"), ("ca_cert", "CA")] {
            for certificate in entry[field].as_array().into_iter().flatten() {
                table.row(row(certificate, kind, now));
            }
        }
    }
    table.sort();
    table
}

fn row(certificate: &Value, kind: &str, now: OffsetDateTime) -> Vec<String> {
    let names = certificate["subject_alt_names"].as_array().into_iter().flatten();
    let name = names
        .filter_map(|name| name["uri"].as_str().or(name["dns"].as_str()))
        .next();
    let name = name.unwrap_or_else(|| text(certificate, "/path"));
    let (from, until) = (
        text(certificate, "/valid_from"),
        text(certificate, "/expiration_time"),
    );
    let begun = moment::seconds_since(from, now).is_some_and(|_| !is_after(from, now));
    let valid = begun && is_after(until, now);
    vec![
        if name.is_empty() {
            "-".into()
        } else {
            name.to_owned()
        },
        kind.into(),
        valid.to_string(),
        text(certificate, "/serial_number").into(),
        until.into(),
        from.into(),
    ]
}

fn is_after(written: &str, now: OffsetDateTime) -> bool {
    use time::format_description::well_known::Rfc3339;
    OffsetDateTime::parse(written, &Rfc3339).is_ok_and(|at| at > now)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn validity() {
        let now = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        let certificate = |from: &str, until: &str| {
            json!({"serial_number": "ab", "valid_from": from, "expiration_time": until,
                "subject_alt_names": [{"uri": "spiffe://cluster.local/ns/default/sa/reviews"}]})
        };
        let check = |from: &str, until: &str, expect: &str| {
            assert_eq!(
                row(&certificate(from, until), "Cert Chain", now)[2],
                expect,
                "{from} {until}"
            );
        };
        check("2023-11-14T00:00:00Z", "2023-11-15T00:00:00Z", "true");
        check("2023-11-13T00:00:00Z", "2023-11-14T00:00:00Z", "false");
        check("2023-11-15T00:00:00Z", "2023-11-16T00:00:00Z", "false");
        let text = table(
            &json!({"certificates": [{"ca_cert": [{"path": "<inline>"}], "cert_chain": []}]}),
            now,
        )
        .to_string();
        assert!(text.contains("<inline>   CA     false"), "{text}");
    }
}
