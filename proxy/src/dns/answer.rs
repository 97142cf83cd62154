//! A query and the table → what to do. Pure.
//!
//! A and AAAA questions about hosts of the table are answered here; a host without addresses of the asked family gets an
//! empty answer (NODATA), so that no resolver outside is asked about the mesh's names. Everything else is forwarded.

use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType, rdata::CNAME},
};

use super::table::{Found, Table};

/// Seconds that clients may keep an answer: short, as the mesh changes.
pub const TTL: u32 = 30;
/// What fits into a UDP answer without EDNS (RFC 1035 §2.3.4).
const PLAIN_UDP: usize = 512;
/// The largest UDP answer sent, whatever the client offers: avoids fragments.
const MAX_UDP: usize = 1232;

/// What to do with a query.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this back.
    Answer(Vec<u8>),
    /// The table does not know: ask the resolvers.
    Forward,
    /// Not a query at all: no answer.
    Ignore,
}

/// How the query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// Decides about one query. `turn` rotates addresses, so that clients that take the first spread out.
pub fn answer(query: &[u8], table: &Table, transport: Transport, turn: usize) -> Step {
    // Anything that cannot be read in full (a newer extension, perhaps) is for the resolvers to judge, if it is a query.
    let Ok(message) = Message::from_vec(query) else {
        return if query.len() >= 12 && query[2] & 0x80 == 0 {
            Step::Forward
        } else {
            Step::Ignore
        };
    };
    if message.metadata.message_type != MessageType::Query {
        return Step::Ignore;
    }
    let [question] = message.queries.as_slice() else {
        return Step::Forward;
    };
    if message.metadata.op_code != OpCode::Query || question.query_class() != DNSClass::IN {
        return Step::Forward;
    }
    let name = question.name().to_lowercase().to_ascii();
    let Some(found) = table.find(name.trim_end_matches('.')) else {
        return Step::Forward;
    };
    let Some(records) = records(question, &found, turn) else {
        return Step::Forward;
    };
    match encode(&message, question, records, transport) {
        Some(bytes) => Step::Answer(bytes),
        None => Step::Forward,
    }
}

/// `None`: a type that the table knows nothing about.
fn records(question: &Query, found: &Found<'_>, turn: usize) -> Option<Vec<Record>> {
    let mut owner = question.name().clone();
    let mut records = Vec::new();
    let data: Vec<RData> = match question.query_type() {
        RecordType::A => found
            .addresses
            .v4
            .iter()
            .map(|address| RData::A((*address).into()))
            .collect(),
        RecordType::AAAA => found
            .addresses
            .v6
            .iter()
            .map(|address| RData::AAAA((*address).into()))
            .collect(),
        _ => return None,
    };
    if let Some(host) = found.alias_of
        && !data.is_empty()
    {
        let host = Name::from_ascii(format!("{host}.")).ok()?;
        records.push(Record::from_rdata(owner, TTL, RData::CNAME(CNAME(host.clone()))));
        owner = host;
    }
    let count = data.len().max(1);
    let (tail, head) = data.split_at(turn % count % (data.len() + 1));
    let rotated = head.iter().chain(tail).cloned();
    records.extend(rotated.map(|data| Record::from_rdata(owner.clone(), TTL, data)));
    Some(records)
}

fn encode(query: &Message, question: &Query, records: Vec<Record>, transport: Transport) -> Option<Vec<u8>> {
    let mut response = reply(query, question, ResponseCode::NoError);
    response.metadata.authoritative = true;
    response.answers = records;
    let limit = match (transport, &query.edns) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        (Transport::Udp, None) => PLAIN_UDP,
        (Transport::Udp, Some(edns)) => usize::from(edns.max_payload()).clamp(PLAIN_UDP, MAX_UDP),
    };
    let mut bytes = response.to_vec().ok()?;
    while bytes.len() > limit {
        // Half of what is left, until it fits; the client sees the bit and comes back over TCP.
        response.metadata.truncation = true;
        response.answers.truncate(response.answers.len() / 2);
        bytes = response.to_vec().ok()?;
    }
    Some(bytes)
}

fn reply(query: &Message, question: &Query, code: ResponseCode) -> Message {
    let mut response = Message::response(query.metadata.id, query.metadata.op_code);
    response.metadata = Metadata::response_from_request(&query.metadata);
    response.metadata.recursion_available = true;
    response.metadata.response_code = code;
    response.add_query(question.clone());
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP as u16);
        response.edns = Some(edns);
    }
    response
}

/// The answer to a query that could not be resolved; `None` when the query cannot even be read.
pub fn failure(query: &[u8]) -> Option<Vec<u8>> {
    match Message::from_vec(query) {
        Ok(message) => match message.queries.first() {
            Some(question) => reply(&message, question, ResponseCode::ServFail).to_vec().ok(),
            None => Message::error_msg(
                message.metadata.id,
                message.metadata.op_code,
                ResponseCode::FormErr,
            )
            .to_vec()
            .ok(),
        },
        Err(_) => {
            let id = u16::from_be_bytes([*query.first()?, *query.get(1)?]);
            Message::error_msg(id, OpCode::Query, ResponseCode::FormErr)
                .to_vec()
                .ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::table::tests::example;

    fn ask(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message.to_vec().unwrap()
    }

    fn check(name: &str, kind: RecordType, expect: Option<&[&str]>) {
        match answer(&ask(name, kind), &example(), Transport::Udp, 0) {
            Step::Answer(bytes) => {
                let message = Message::from_vec(&bytes).unwrap();
                assert_eq!(
                    (message.metadata.id, message.metadata.response_code),
                    (7, ResponseCode::NoError)
                );
                assert!(message.metadata.recursion_desired && message.metadata.recursion_available);
                let answers: Vec<String> = message
                    .answers
                    .iter()
                    .map(|record| record.data.to_string())
                    .collect();
                assert_eq!(
                    Some(answers.iter().map(String::as_str).collect::<Vec<_>>().as_slice()),
                    expect,
                    "{name}"
                );
            }
            step => assert_eq!((step, expect), (Step::Forward, None), "{name}"),
        }
    }

    #[test]
    fn answers_what_it_knows() {
        check(
            "Reviews.Default.svc.cluster.local.",
            RecordType::A,
            Some(&["10.96.0.5"]),
        );
        check("reviews.default.svc.cluster.local.", RecordType::AAAA, Some(&[]));
        check(
            "dual.default.svc.cluster.local.",
            RecordType::AAAA,
            Some(&["fd00::6"]),
        );
        check(
            "httpbin.org.default.svc.cluster.local.",
            RecordType::A,
            Some(&["httpbin.org.", "240.240.0.2"]),
        );
        check("reviews.default.svc.cluster.local.", RecordType::TXT, None);
        check("example.com.", RecordType::A, None);
    }

    #[test]
    fn what_does_not_fit_is_truncated() {
        use mesh_proto::nds::{NameTable, name_table::NameInfo};
        let ips = (0..200).map(|n| format!("10.0.0.{n}")).collect();
        let info = NameInfo {
            ips,
            ..NameInfo::default()
        };
        let table = Table::build(
            &NameTable {
                table: [("many.example".to_owned(), info)].into(),
            },
            &[],
        );
        let query = ask("many.example.", RecordType::A);
        let Step::Answer(bytes) = answer(&query, &table, Transport::Udp, 3) else {
            panic!("forwarded")
        };
        let message = Message::from_vec(&bytes).unwrap();
        assert!(bytes.len() <= PLAIN_UDP && message.metadata.truncation && !message.answers.is_empty());
        assert_eq!(message.answers[0].data.to_string(), "10.0.0.3");
        let Step::Answer(bytes) = answer(&query, &table, Transport::Tcp, 0) else {
            panic!("forwarded")
        };
        assert_eq!(Message::from_vec(&bytes).unwrap().answers.len(), 200);
    }

    #[test]
    fn damaged_queries_get_answers_of_their_own() {
        let table = example();
        let corpus = [
            ask("reviews.default.svc.cluster.local.", RecordType::A),
            ask("dual.default.svc.cluster.local.", RecordType::AAAA),
            ask("example.com.", RecordType::TXT),
        ];
        let corpus: Vec<&[u8]> = corpus.iter().map(Vec::as_slice).collect();
        crate::testing::damaged(&corpus, 10_000, |query| {
            if let Step::Answer(bytes) = answer(query, &table, Transport::Udp, 1) {
                // It is an answer, to this query, and a client can read it.
                assert_eq!(bytes[..2], query[..2]);
                let message = Message::from_vec(&bytes).unwrap();
                assert_eq!(message.metadata.message_type, MessageType::Response);
                assert!(bytes.len() <= MAX_UDP);
            }
            if let Some(bytes) = failure(query) {
                assert_eq!(bytes[..2], query[..2]);
            }
        });
    }

    #[test]
    fn odd_bytes_are_harmless() {
        let table = example();
        assert_eq!(answer(&[], &table, Transport::Udp, 0), Step::Ignore);
        assert_eq!(answer(&[0; 11], &table, Transport::Udp, 0), Step::Ignore);
        let mut response = ask("reviews.", RecordType::A);
        response[2] |= 0x80;
        assert_eq!(answer(&response, &table, Transport::Udp, 0), Step::Ignore);
        assert_eq!(failure(&[1]), None);
        let message = Message::from_vec(&failure(&ask("x.", RecordType::A)).unwrap()).unwrap();
        assert_eq!(
            (message.metadata.id, message.metadata.response_code),
            (7, ResponseCode::ServFail)
        );
    }
}
