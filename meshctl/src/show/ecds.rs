//! Extensions that are configured on their own (ECDS).

use serde_json::Value;

use super::{resources, text};
use crate::output::Table;

pub fn list(dump: &Value) -> Vec<&Value> {
    resources(dump, "EcdsConfigDump", &[("ecds_filters", "/ecds_filter")])
}

pub fn table(dump: &Value) -> Table {
    let mut table = Table::new(&["NAME", "TYPE"]);
    for extension in list(dump) {
        let kind = text(extension, "/typed_config/@type");
        table.row(vec![
            text(extension, "/name").to_owned(),
            kind.rsplit('.').next().unwrap_or(kind).to_owned(),
        ]);
    }
    table.sort();
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows() {
        let dump = json!({"configs": [{"@type": "x.EcdsConfigDump", "ecds_filters": [
            {"ecds_filter": {"name": "a.wasm", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"}}}]}]});
        assert_eq!(table(&dump).to_string(), "NAME     TYPE\na.wasm   Wasm\n");
    }
}
