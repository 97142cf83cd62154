//! Header changes: lists of headers to add and to remove, as routes, virtual hosts, clusters and filters have them.

// Older fields, which configurations still use, are read too.
#![allow(deprecated)]

use std::{mem::take, sync::Arc};

use mesh_proto::envoy::config::{common::mutation_rules::v3 as rules, core::v3 as core};

use super::{At, Result, each, format as formats, refuse, required, scalar, unsupported};
use crate::config::{
    log::Piece,
    route::{Append, Mutation, MutationField, Value},
};

/// One level's changes: removals go before additions.
pub fn mutations(
    add: Vec<core::HeaderValueOption>,
    add_field: &str,
    remove: Vec<String>,
    remove_field: &str,
) -> Result<Vec<Mutation>> {
    let mut all = each(remove, remove_field, |name| removal(&name))?;
    all.extend(each(add, add_field, addition)?);
    Ok(all)
}

fn removal(name: &str) -> Result<Mutation> {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        return refuse(format!("{name} cannot be removed"));
    }
    Ok(Mutation::Remove(scalar::header_name(name)?))
}

/// One header to set.
pub fn addition(mut value: core::HeaderValueOption) -> Result<Mutation> {
    use core::header_value_option::HeaderAppendAction as Action;
    let mut header = required(take(&mut value.header), "header")?;
    let action = match (
        value.append.map(|append| append.value),
        Action::try_from(value.append_action),
    ) {
        // The older field, where it is used, says it all.
        (Some(true), _) | (None, Ok(Action::AppendIfExistsOrAdd)) => Append::AppendOrAdd,
        (Some(false), _) | (None, Ok(Action::OverwriteIfExistsOrAdd)) => Append::OverwriteOrAdd,
        (None, Ok(Action::AddIfAbsent)) => Append::AddIfAbsent,
        (None, Ok(Action::OverwriteIfExists)) => Append::OverwriteIfExists,
        (None, Err(_)) => return refuse("is not known").at("append_action"),
    };
    let field = match header.key.to_ascii_lowercase().as_str() {
        ":authority" | "host" => MutationField::Authority,
        ":path" => MutationField::Path,
        ":method" => MutationField::Method,
        name if name.starts_with(':') => return refuse(format!("{name} cannot be changed")).at("header.key"),
        name => MutationField::Header(scalar::header_name(name).at("header.key")?),
    };
    if !header.raw_value.is_empty() {
        let raw = take(&mut header.raw_value);
        header.value = String::from_utf8(raw).or_else(|_| refuse("is not text").at("header.raw_value"))?;
    }
    let value_of = self::value(&header.value).at("header.value")?;
    Ok(Mutation::Set {
        field,
        value: value_of,
        action,
        keep_empty: value.keep_empty_value,
    })
}

/// A header's value: fixed, unless it has command operators.
fn value(text: &str) -> Result<Value> {
    let format = formats::format(text, true)?;
    match &format.pieces[..] {
        [] => Ok(Value::Fixed(scalar::header_value("")?)),
        [Piece::Text(text)] => Ok(Value::Fixed(scalar::header_value(text)?)),
        _ => Ok(Value::Format(Arc::new(format))),
    }
}

/// The changes of the header mutation filter.
pub fn listed(list: Vec<rules::HeaderMutation>, field: &str) -> Result<Vec<Mutation>> {
    use rules::header_mutation::Action;
    each(list, field, |mutation| {
        match required(mutation.action, "action")? {
            Action::Remove(name) => removal(&name).at("remove"),
            Action::Append(option) => addition(option).at("append"),
            Action::RemoveOnMatch(_) => unsupported("remove_on_match"),
        }
    })
}
