//! ProxyConfig alone.

use super::{Validate, field};
use crate::{
    finding::Report,
    kube::{Object, networking::ProxyConfig},
};

impl Validate for ProxyConfig {
    fn validate(&self, _: &Object<Self>, report: &mut Report) {
        if let Some(selector) = &self.selector {
            field::labels(&selector.match_labels, "spec.selector.matchLabels", report);
        }
        if let Some(threads) = self.concurrency.filter(|threads| *threads < 0) {
            report.error("spec.concurrency", format!("{threads} is below 0"));
        }
        for name in self.environment_variables.keys() {
            if name.is_empty() || name.contains(['=', '\0']) {
                report.error(
                    format!("spec.environmentVariables.{name}"),
                    format!("{name:?} is not the name of a variable"),
                );
            }
        }
        if let Some(image) = &self.image
            && !matches!(image.image_type.as_str(), "" | "default" | "debug" | "distroless")
        {
            report.warn(
                "spec.image.imageType",
                format!(
                    "{:?} is taken for the ending of an image's tag; usual are default, debug and distroless",
                    image.image_type
                ),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{kube::Kind, validate::testing::expect};

    #[test]
    fn configs() {
        let check = |spec: &str, found: &[&str]| expect(Kind::ProxyConfig, spec, found);
        check("concurrency: 0\nimage: {imageType: distroless}", &[]);
        check("concurrency: -1", &["Error spec.concurrency"]);
        check(
            "environmentVariables: {'A=B': c}",
            &["Error spec.environmentVariables.A=B"],
        );
        check("image: {imageType: tiny}", &["Warning spec.image.imageType"]);
        check(
            "selector: {matchLabels: {app: 'a*'}}",
            &["Error spec.selector.matchLabels.app"],
        );
    }
}
