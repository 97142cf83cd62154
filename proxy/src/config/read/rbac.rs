//! Role-based access rules, for the HTTP and the network filter.

// Older fields, which configurations still use, are read too.
#![allow(deprecated)]

use std::mem::take;

use mesh_proto::envoy::{
    config::rbac::v3 as pb,
    extensions::filters::{http::rbac::v3 as http, network::rbac::v3 as network},
};

use super::{At, Result, done, each, matcher, metadata, refuse, required, scalar, unsupported};
use crate::config::{
    filter::{HttpRbac, NetworkRbac, Permission, Policy, Principal, Rbac, RbacAction},
    metadata::MetadataMatch,
};

pub fn http(mut value: http::Rbac) -> Result<HttpRbac> {
    let rbac = HttpRbac {
        rules: take(&mut value.rules)
            .map(|rules| self::rules(rules).at("rules"))
            .transpose()?,
        shadow: take(&mut value.shadow_rules)
            .map(|rules| self::rules(rules).at("shadow_rules"))
            .transpose()?,
    };
    // Names of statistics.
    value.rules_stat_prefix.clear();
    value.shadow_rules_stat_prefix.clear();
    value.track_per_rule_stats = false;
    done(&value)?;
    Ok(rbac)
}

pub fn network(mut value: network::Rbac) -> Result<NetworkRbac> {
    let rbac = NetworkRbac {
        stat_prefix: take(&mut value.stat_prefix).into(),
        rules: take(&mut value.rules)
            .map(|rules| self::rules(rules).at("rules"))
            .transpose()?,
        shadow: take(&mut value.shadow_rules)
            .map(|rules| self::rules(rules).at("shadow_rules"))
            .transpose()?,
        continuous: take(&mut value.enforcement_type) == network::rbac::EnforcementType::Continuous as i32,
    };
    value.shadow_rules_stat_prefix.clear();
    done(&value)?;
    Ok(rbac)
}

fn rules(mut value: pb::Rbac) -> Result<Rbac> {
    let action = match pb::rbac::Action::try_from(take(&mut value.action)) {
        Ok(pb::rbac::Action::Allow) => RbacAction::Allow,
        Ok(pb::rbac::Action::Deny) => RbacAction::Deny,
        Ok(pb::rbac::Action::Log) => RbacAction::Log,
        Err(_) => return refuse("is not known").at("action"),
    };
    let mut policies = take(&mut value.policies).into_iter().collect::<Vec<_>>();
    policies.sort_by(|(a, _), (b, _)| a.cmp(b));
    let policies = policies
        .into_iter()
        .map(|(name, rules)| {
            let path = format!("policies[{name:?}]");
            policy(name, rules).at(&path)
        })
        .collect::<Result<_>>()?;
    done(&value)?;
    Ok(Rbac { action, policies })
}

fn policy(name: String, mut value: pb::Policy) -> Result<Policy> {
    let policy = Policy {
        name: name.into(),
        permissions: each(take(&mut value.permissions), "permissions", permission)?,
        principals: each(take(&mut value.principals), "principals", principal)?,
    };
    done(&value)?;
    Ok(policy)
}

fn permission(value: pb::Permission) -> Result<Permission> {
    use pb::permission::Rule;
    Ok(match required(value.rule, "rule")? {
        Rule::Any(true) => Permission::Any,
        Rule::Any(false) => Permission::Not(Box::new(Permission::Any)),
        Rule::AndRules(set) => Permission::All(each(set.rules, "rules", permission).at("and_rules")?),
        Rule::OrRules(set) => Permission::AnyOf(each(set.rules, "rules", permission).at("or_rules")?),
        Rule::NotRule(rule) => Permission::Not(Box::new(permission(*rule).at("not_rule")?)),
        Rule::Header(rule) => Permission::Header(matcher::header(rule).at("header")?),
        Rule::UrlPath(rule) => Permission::Path(matcher::path_matcher(rule).at("url_path")?),
        Rule::DestinationIp(range) => Permission::DestinationIp(scalar::network(range).at("destination_ip")?),
        Rule::DestinationPort(port) => match u16::try_from(port) {
            Ok(port) => Permission::DestinationPort(port),
            Err(_) => return refuse(format!("{port} is not a port")).at("destination_port"),
        },
        Rule::DestinationPortRange(range) => {
            let end = |n: i32| {
                u32::try_from(n)
                    .or_else(|_| refuse("must not be negative"))
                    .at("destination_port_range")
            };
            Permission::DestinationPorts(end(range.start)?..end(range.end)?)
        }
        Rule::RequestedServerName(rule) => {
            Permission::ServerName(matcher::string(rule).at("requested_server_name")?)
        }
        Rule::Metadata(rule) => Permission::Metadata(metadata::metadata(rule).at("metadata")?),
        Rule::Matcher(_) => return unsupported("matcher"),
        Rule::UriTemplate(_) => return unsupported("uri_template"),
        Rule::SourcedMetadata(rule) => Permission::Metadata(sourced(rule).at("sourced_metadata")?),
    })
}

fn principal(value: pb::Principal) -> Result<Principal> {
    use pb::principal::Identifier as Id;
    Ok(match required(value.identifier, "identifier")? {
        Id::Any(true) => Principal::Any,
        Id::Any(false) => Principal::Not(Box::new(Principal::Any)),
        Id::AndIds(set) => Principal::All(each(set.ids, "ids", principal).at("and_ids")?),
        Id::OrIds(set) => Principal::AnyOf(each(set.ids, "ids", principal).at("or_ids")?),
        Id::NotId(id) => Principal::Not(Box::new(principal(*id).at("not_id")?)),
        Id::Authenticated(rule) => Principal::Authenticated(
            rule.principal_name
                .map(matcher::string)
                .transpose()
                .at("authenticated.principal_name")?,
        ),
        Id::SourceIp(range) => Principal::DirectRemoteIp(scalar::network(range).at("source_ip")?),
        Id::DirectRemoteIp(range) => {
            Principal::DirectRemoteIp(scalar::network(range).at("direct_remote_ip")?)
        }
        Id::RemoteIp(range) => Principal::RemoteIp(scalar::network(range).at("remote_ip")?),
        Id::Header(rule) => Principal::Header(matcher::header(rule).at("header")?),
        Id::UrlPath(rule) => Principal::Path(matcher::path_matcher(rule).at("url_path")?),
        Id::Metadata(rule) => Principal::Metadata(metadata::metadata(rule).at("metadata")?),
        Id::FilterState(_) => return unsupported("filter_state"),
        Id::SourcedMetadata(rule) => Principal::Metadata(sourced(rule).at("sourced_metadata")?),
        Id::Custom(_) => return unsupported("custom"),
    })
}

/// Metadata of the request; that of routes is not looked at.
fn sourced(value: pb::SourcedMetadata) -> Result<MetadataMatch> {
    if value.metadata_source != pb::MetadataSource::Dynamic as i32 {
        return unsupported("metadata_source");
    }
    metadata::metadata(required(value.metadata_matcher, "metadata_matcher")?).at("metadata_matcher")
}
