//! The cluster's DNS, as a pure function: a question and the table of names in, an answer out. Services have the address
//! of the service or, headless, those of their pods; pods have `a-b-c-d.<namespace>.pod.cluster.local`. A name inside the
//! cluster's domain that is not in the table is answered with NXDOMAIN at once; a name outside of it is not ours.

pub mod server;

use std::{
    collections::{BTreeSet, HashMap},
    net::Ipv4Addr,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, CNAME, SOA},
    },
};

use mesh_proto::names::CLUSTER_DOMAIN;

/// How long a resolver may keep an answer. Short: pods come and go.
const TTL: u32 = 5;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Addresses(Vec<Ipv4Addr>),
    /// Another name (a service of type ExternalName).
    Alias(String),
}

/// Full lower-case names without the last dot → what they stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    names: HashMap<String, Target>,
    /// Names that have names below them: they exist, though nothing stands on them (RFC 8020).
    inner: BTreeSet<String>,
}

impl Zone {
    pub fn insert(&mut self, name: &str, target: Target) {
        let name = name.to_ascii_lowercase();
        let mut rest = name.as_str();
        while let Some((_, parent)) = rest.split_once('.') {
            self.inner.insert(parent.to_owned());
            rest = parent;
        }
        self.names.insert(name, target);
    }
}

/// What to do with a question.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    Answer(Box<Message>),
    /// Not our domain: ask the host's resolvers.
    Forward,
}

/// Decides one question.
pub fn answer(zone: &Zone, question: &Message) -> Verdict {
    let (id, op_code) = (question.metadata.id, question.metadata.op_code);
    let mut reply = Message::new(id, MessageType::Response, op_code);
    reply.metadata.recursion_desired = question.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    let [query] = &question.queries[..] else {
        reply.metadata.response_code = ResponseCode::FormErr;
        return Verdict::Answer(Box::new(reply));
    };
    reply.add_query(query.clone());
    if op_code != OpCode::Query {
        reply.metadata.response_code = ResponseCode::NotImp;
        return Verdict::Answer(Box::new(reply));
    }
    let name = plain(query.name());
    let ours = name == CLUSTER_DOMAIN || name.ends_with(&format!(".{CLUSTER_DOMAIN}"));
    // A bare word is nobody's name outside either; asking the host would only take time.
    if !ours && name.contains('.') {
        return Verdict::Forward;
    }
    reply.metadata.authoritative = true;
    match zone.names.get(&name) {
        Some(Target::Addresses(addresses)) if query.query_type() == RecordType::A => {
            let record =
                |address: &Ipv4Addr| Record::from_rdata(query.name().clone(), TTL, RData::A(A(*address)));
            reply.add_answers(addresses.iter().map(record));
        }
        Some(Target::Alias(other)) => {
            if let Ok(other) = Name::from_ascii(format!("{other}.")) {
                reply.add_answer(Record::from_rdata(
                    query.name().clone(),
                    TTL,
                    RData::CNAME(CNAME(other)),
                ));
            }
        }
        Some(Target::Addresses(_)) => {}
        None if zone.inner.contains(&name) => {}
        None => reply.metadata.response_code = ResponseCode::NXDomain,
    }
    if reply.answers.is_empty() {
        reply.add_authority(authority());
    }
    Verdict::Answer(Box::new(reply))
}

/// Tells a resolver how long it may remember that there is nothing (RFC 2308).
fn authority() -> Record {
    let name = |text: &str| Name::from_ascii(text).unwrap_or_default();
    let zone = format!("{CLUSTER_DOMAIN}.");
    let soa = SOA::new(
        name(&format!("ns.dns.{zone}")),
        name(&format!("hostmaster.{zone}")),
        1,
        7200,
        1800,
        86_400,
        TTL,
    );
    Record::from_rdata(name(&zone), TTL, RData::SOA(soa))
}

fn plain(name: &Name) -> String {
    let text = name.to_ascii().to_ascii_lowercase();
    text.strip_suffix('.').map_or(text.clone(), ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Query;

    use super::*;

    fn zone() -> Zone {
        let mut zone = Zone::default();
        let service = "reviews.default.svc.cluster.local";
        zone.insert(service, Target::Addresses(vec![Ipv4Addr::new(10, 96, 0, 10)]));
        zone.insert(
            "out.default.svc.cluster.local",
            Target::Alias("example.com".into()),
        );
        zone
    }

    fn ask(name: &str, kind: RecordType) -> Option<(ResponseCode, Vec<String>)> {
        let mut question = Message::query();
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        match answer(&zone(), &question) {
            Verdict::Forward => None,
            Verdict::Answer(reply) => {
                assert_eq!(reply.metadata.id, question.metadata.id);
                let records = reply
                    .answers
                    .iter()
                    .map(|record| record.data.to_string())
                    .collect();
                Some((reply.metadata.response_code, records))
            }
        }
    }

    #[test]
    fn answers() {
        let no_error = |records: &[&str]| {
            Some((
                ResponseCode::NoError,
                records.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ))
        };
        assert_eq!(
            ask("Reviews.default.svc.cluster.local.", RecordType::A),
            no_error(&["10.96.0.10"])
        );
        assert_eq!(
            ask("reviews.default.svc.cluster.local.", RecordType::AAAA),
            no_error(&[])
        );
        assert_eq!(
            ask("out.default.svc.cluster.local.", RecordType::A),
            no_error(&["example.com."])
        );
        // A name with names below it exists.
        assert_eq!(ask("default.svc.cluster.local.", RecordType::A), no_error(&[]));
        let nothing = Some((ResponseCode::NXDomain, Vec::new()));
        assert_eq!(ask("ratings.default.svc.cluster.local.", RecordType::A), nothing);
        assert_eq!(ask("reviews.", RecordType::A), nothing);
        assert_eq!(ask("example.com.", RecordType::A), None);
    }
}
