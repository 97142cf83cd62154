//! The header mutation filter: changes to the request where the filter stands, and to every answer on its way back, be
//! it the upstream's or the mesh's own. The filter's own changes come first, then those of the route.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, uri::PathAndQuery};

use crate::{
    config::{
        filter::{FilterOverride, HttpFilter, HttpFilterKind},
        route::{Mutation, MutationField},
    },
    decide::headers::apply,
    http::{answer::format_value, exchange::Exchange, head::Head},
};

/// Changes the request.
pub fn request(exchange: &Exchange, head: &mut Head, own: &[Mutation], of_route: &[Mutation]) {
    let Head {
        headers,
        authority,
        target,
        method,
        ..
    } = head;
    let before = target.clone();
    let line = |field: &MutationField, value: HeaderValue| match field {
        MutationField::Authority => {
            if let Ok(text) = value.to_str() {
                *authority = text.into();
            }
        }
        MutationField::Path => {
            if let Ok(path) = PathAndQuery::try_from(value.as_bytes()) {
                *target = path;
            }
        }
        MutationField::Method => {
            if let Ok(new) = Method::from_bytes(value.as_bytes()) {
                *method = new;
            }
        }
        MutationField::Header(_) => {}
    };
    let format = |format: &_| format_value(exchange, format);
    apply(own.iter().chain(of_route), headers, format, line);
    if *target != before {
        exchange.rewritten(target.as_str());
    }
}

/// Changes an answer, last filter first. Costs nothing where no such filter is configured.
pub fn response(exchange: &Exchange, headers: &mut HeaderMap) {
    if !exchange.plan.mutates {
        return;
    }
    let route = exchange.route.borrow();
    for filter in exchange.plan.hcm.filters.iter().rev() {
        let HttpFilterKind::HeaderMutation(_, own) = &filter.kind else {
            continue;
        };
        let chosen = route
            .as_ref()
            .and_then(|(config, decision)| decision.per_filter(config, &filter.name));
        let Some(of_route) = in_force(filter, chosen) else {
            continue;
        };
        let of_route = of_route.map_or(&[][..], |(_, response)| response);
        let format = |format: &_| format_value(exchange, format);
        apply(own.iter().chain(of_route), headers, format, |_, _| {});
    }
}

/// The changes of a route, to requests and to answers.
type Both<'a> = (&'a Arc<[Mutation]>, &'a Arc<[Mutation]>);

/// `None`: the filter is off here. Else what the route adds to it.
pub fn in_force<'a>(filter: &HttpFilter, chosen: Option<&'a FilterOverride>) -> Option<Option<Both<'a>>> {
    match chosen {
        Some(FilterOverride::Disabled) => None,
        Some(FilterOverride::HeaderMutation(request, response)) => Some(Some((request, response))),
        Some(_) => Some(None),
        None => (!filter.disabled).then_some(None),
    }
}
