//! WasmPlugin and TrafficExtension alone.

use super::{Validate, field};
use crate::{
    finding::Report,
    kube::{
        Object,
        extension::{TrafficExtension, TrafficSelector, ValueFrom, VmConfig, WasmPlugin},
    },
};

/// Where programs can be fetched from; without a scheme it is the name of an image.
const SCHEMES: [&str; 4] = ["oci", "https", "http", "file"];

impl Validate for WasmPlugin {
    fn validate(&self, _: &Object<Self>, report: &mut Report) {
        field::one_target(
            self.selector.is_some(),
            self.target_ref.as_ref(),
            &self.target_refs,
            report,
        );
        if let Some(selector) = &self.selector {
            field::labels(&selector.match_labels, "spec.selector.matchLabels", report);
        }
        program(&self.url, &self.sha256, self.vm_config.as_ref(), "spec", report);
        selectors(&self.matches, report);
    }
}

impl Validate for TrafficExtension {
    fn validate(&self, _: &Object<Self>, report: &mut Report) {
        field::one_target(self.selector.is_some(), None, &self.target_refs, report);
        if let Some(selector) = &self.selector {
            field::labels(&selector.match_labels, "spec.selector.matchLabels", report);
        }
        match (&self.wasm, &self.lua) {
            (Some(wasm), None) => {
                program(
                    &wasm.url,
                    &wasm.sha256,
                    wasm.vm_config.as_ref(),
                    "spec.wasm",
                    report,
                );
            }
            (None, Some(lua)) if lua.inline_code.is_empty() => {
                report.error("spec.lua.inlineCode", "must be given");
            }
            (None, Some(lua)) if lua.inline_code.len() > 64 << 10 => report.error(
                "spec.lua.inlineCode",
                format!("{} bytes; a program may have 65536", lua.inline_code.len()),
            ),
            (None, Some(_)) => {}
            (None, None) => report.error("spec", "must say wasm or lua"),
            (Some(_), Some(_)) => report.error("spec", "only one of wasm, lua can be set"),
        }
        selectors(&self.matches, report);
    }
}

fn program(url: &str, sha256: &str, surroundings: Option<&VmConfig>, at: &str, report: &mut Report) {
    if url.is_empty() {
        report.error(format!("{at}.url"), "must say where the program is");
    } else if let Some((scheme, _)) = url.split_once("://")
        && !SCHEMES.contains(&scheme)
    {
        report.error(
            format!("{at}.url"),
            format!("{scheme:?} is not one of {}", SCHEMES.join(", ")),
        );
    }
    let hash = |text: &str| text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !sha256.is_empty() && !hash(sha256) {
        report.error(format!("{at}.sha256"), "must be 64 digits of 0 to 9 and a to f");
    }
    let env = surroundings
        .map(|surroundings| &surroundings.env[..])
        .unwrap_or_default();
    for (i, variable) in env.iter().enumerate() {
        let at = format!("{at}.vmConfig.env[{i}]");
        if variable.name.is_empty() {
            report.error(format!("{at}.name"), "must be given");
        } else if env[..i].iter().any(|other| other.name == variable.name) {
            report.error(
                format!("{at}.name"),
                format!("variable {:?} is there twice", variable.name),
            );
        }
        if variable.value_from == ValueFrom::Host && !variable.value.is_empty() {
            report.error(
                format!("{at}.value"),
                "with valueFrom HOST the value comes from the proxy's own environment",
            );
        }
    }
}

fn selectors(list: &[TrafficSelector], report: &mut Report) {
    for (i, selector) in list.iter().enumerate() {
        for (j, port) in selector.ports.iter().enumerate() {
            let path = format!("spec.match[{i}].ports[{j}].number");
            field::port(port.number, &path, report);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{kube::Kind, validate::testing::expect};

    fn check(kind: Kind, spec: &str, found: &[&str]) {
        let mut expected = found.to_vec();
        expected.push("Warning spec");
        expect(kind, spec, &expected);
    }

    #[test]
    fn plugins() {
        let check = |spec: &str, found: &[&str]| check(Kind::WasmPlugin, spec, found);
        check("url: oci://example.com/plugin:1", &[]);
        check("url: example.com:5000/plugin", &[]);
        check("phase: AUTHN", &["Error spec.url"]);
        check(
            "url: ftp://a\nsha256: ABC",
            &["Error spec.url", "Error spec.sha256"],
        );
        check(
            "url: a\nmatch: [{ports: [{number: 0}]}]",
            &["Error spec.match[0].ports[0].number"],
        );
        check(
            "url: a\nvmConfig: {env: [{name: A, valueFrom: HOST, value: b}, {name: A}]}",
            &[
                "Error spec.vmConfig.env[0].value",
                "Error spec.vmConfig.env[1].name",
            ],
        );
        check(
            "url: a\nselector: {matchLabels: {a: b}}\ntargetRefs: [{kind: Pod, name: a}]",
            &["Error spec", "Error spec.targetRefs[0]"],
        );
    }

    #[test]
    fn extensions() {
        let check = |spec: &str, found: &[&str]| check(Kind::TrafficExtension, spec, found);
        check("lua: {inlineCode: 'return'}", &[]);
        check("wasm: {url: a}", &[]);
        check("priority: 1", &["Error spec"]);
        check("wasm: {}", &["Error spec.wasm.url"]);
        check("wasm: {url: a}\nlua: {inlineCode: b}", &["Error spec"]);
    }
}
