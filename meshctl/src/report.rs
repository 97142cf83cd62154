//! What a bug report holds: one archive of texts. Everything goes through [`redact`] on its way in, so that nothing can be
//! added past it. Secrets are not read at all; what may hold one (environment of applications, headers, logs) is blanked.
//! Bounds: [`MAX_ENTRY`] for one file, [`MAX_ALL`] for all of them; what is cut says so.

use std::io::Write;

use anyhow::Context as _;
use flate2::{Compression, write::GzEncoder};
use serde_json::Value;

pub mod redact;

const MAX_ENTRY: usize = 16 << 20;
const MAX_ALL: usize = 512 << 20;
const CUT: &str = "\n[cut here: the rest was too long]\n";

/// The files of a report, by path.
#[derive(Debug, Default)]
pub struct Report {
    entries: Vec<(String, String)>,
    size: usize,
    /// Files for which there was no room.
    left_out: Vec<String>,
}

impl Report {
    /// A text of any kind.
    pub fn text(&mut self, path: &str, text: &str) {
        self.add(path, redact::text(text));
    }

    /// What a page or a command says as JSON.
    pub fn json(&mut self, path: &str, value: &Value) {
        let mut value = value.clone();
        redact::value(&mut value);
        let text = serde_json::to_string_pretty(&value).unwrap_or_default();
        self.add(path, redact::text(&text));
    }

    /// Objects of the API.
    pub fn objects(&mut self, path: &str, objects: &[Value]) {
        let mut all = Vec::new();
        for object in objects {
            let mut object = object.clone();
            redact::object(&mut object);
            redact::value(&mut object);
            all.push(object);
        }
        let text = serde_json::to_string_pretty(&all).unwrap_or_default();
        self.add(path, redact::text(&text));
    }

    fn add(&mut self, path: &str, mut text: String) {
        if text.len() > MAX_ENTRY {
            let mut end = MAX_ENTRY;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            text.push_str(CUT);
        }
        if self.size + text.len() > MAX_ALL {
            self.left_out.push(path.to_owned());
            return;
        }
        self.size += text.len();
        self.entries.push((clean(path), text));
    }

    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(path, _)| path.as_str())
    }

    /// A gzipped tar archive with everything below one folder.
    pub fn write(mut self, folder: &str, now: u64, to: impl Write) -> anyhow::Result<()> {
        if !self.left_out.is_empty() {
            let text = self.left_out.join("\n");
            self.entries.push(("left-out.txt".into(), text));
        }
        let mut archive = tar::Builder::new(GzEncoder::new(to, Compression::default()));
        for (path, text) in &self.entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(now);
            archive
                .append_data(&mut header, format!("{folder}/{path}"), text.as_bytes())
                .with_context(|| format!("{path} cannot be written into the archive"))?;
        }
        archive
            .into_inner()
            .and_then(GzEncoder::finish)
            .context("the archive cannot be finished")?;
        Ok(())
    }
}

/// A path that stays below the archive's folder, whatever the names in it are.
fn clean(path: &str) -> String {
    let parts = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != "." && *part != "..");
    parts.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use serde_json::json;

    use super::*;

    const SECRET: &str = "hunter2-correct-horse-battery";

    fn unpacked(report: Report) -> String {
        let mut packed = Vec::new();
        report.write("report", 1_700_000_000, &mut packed).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&packed[..]));
        let mut all = String::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            all += &format!("== {}\n", entry.path().unwrap().display());
            entry.read_to_string(&mut all).unwrap();
        }
        all
    }

    /// A secret in every place where one may come from.
    #[test]
    fn no_secret_leaves() {
        let mut report = Report::default();
        let token = format!("eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ{}.c2ln", "x".repeat(20));
        let key = format!("-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----");
        report.objects(
            "objects/pods.json",
            &[json!({"kind": "Pod", "metadata": {"name": "web", "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": format!("{{\"password\":\"{SECRET}\"}}")}},
                "spec": {"containers": [
                    {"name": "app", "image": "app:1", "args": [format!("--password={SECRET}"), "--port=80"],
                     "env": [{"name": "DATABASE", "value": format!("postgres://me:{SECRET}@db/x")}, {"name": "PLAIN", "value": SECRET}]},
                    {"name": "istio-proxy", "env": [{"name": "POD_NAME", "value": "web"}]}]}}),
              json!({"kind": "Secret", "metadata": {"name": "s"}, "data": {"a": SECRET}, "stringData": {"b": SECRET}}),
              json!({"kind": "ConfigMap", "metadata": {"name": "app-settings"}, "data": {"c": SECRET}}),
              json!({"kind": "VirtualService", "metadata": {"name": "v"}, "spec": {"http": [{"headers": {"request": {"set": {
                  "authorization": format!("Bearer {SECRET}"), "x-api-key": SECRET, "x-plain": "kept-value"}}}}]}})],
        );
        report.json(
            "proxies/web/config_dump.json",
            &json!({"tls_certificate": {"private_key": {"inline_string": SECRET}, "certificate_chain": {"inline_string": "public-part"}},
                "headers": [{"header": {"key": "Authorization", "value": SECRET}}], "generic_secret": {"secret": {"inline_bytes": SECRET}},
                "password": SECRET}),
        );
        report.text(
            "logs/web/istio-proxy.log",
            &format!(
                "GET / authorization: Bearer {SECRET}\ncookie={SECRET}; more\n{{\"password\":\"{SECRET}\"}}\n{key}\n{token}\n\
                 https://me:{SECRET}@host/path\nkept-line\n"
            ),
        );
        report.text("../../etc/passwd", "kept-too");
        let all = unpacked(report);
        assert!(!all.contains(SECRET), "{all}");
        assert!(!all.contains(&token), "{all}");
        for kept in [
            "kept-line",
            "kept-value",
            "public-part",
            "POD_NAME",
            "--port=80",
            "== report/etc/passwd",
            "kept-too",
            "app:1",
        ] {
            assert!(all.contains(kept), "{kept} is lost:\n{all}");
        }
    }

    #[test]
    fn long_texts_are_cut() {
        let mut report = Report::default();
        report.text("a", &"ä".repeat(MAX_ENTRY));
        let all = unpacked(report);
        assert!(all.ends_with(CUT) && all.len() < MAX_ENTRY + 200, "{}", all.len());
    }
}
