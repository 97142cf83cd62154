//! Negative answers, kept for as long as the zone's SOA allows (RFC 2308), at most [`MAX_TIME`]. An application that asks
//! for a name with each of its search domains makes several queries for nothing; they need not all leave the pod.
//! The key is the whole query but its id, so an answer is only given to a query that is the same in every bit.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RData,
};

/// Answers kept.
pub const ENTRIES: usize = 1_024;
/// The longest time an answer is kept.
pub const MAX_TIME: Duration = Duration::from_secs(30);
/// Larger answers are not kept.
const MAX_BYTES: usize = 1_232;

struct Entry {
    until: Instant,
    response: Vec<u8>,
}

/// The cache, shared by all queries.
#[derive(Default)]
pub struct Cache(Mutex<HashMap<Box<[u8]>, Entry>>);

impl Cache {
    /// The kept answer to this query, with the query's id.
    pub fn get(&self, query: &[u8], now: Instant) -> Option<Vec<u8>> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(query.get(2..)?).filter(|entry| entry.until > now)?;
        let mut response = entry.response.clone();
        response.get_mut(..2)?.copy_from_slice(query.get(..2)?);
        Some(response)
    }

    /// Keeps the answer if it is a negative one.
    pub fn put(&self, query: &[u8], response: &[u8], now: Instant) {
        let Some(key) = query.get(2..) else { return };
        if response.len() > MAX_BYTES {
            return;
        }
        let Some(time) = negative(response) else { return };
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= ENTRIES {
            entries.retain(|_, entry| entry.until > now);
        }
        if entries.len() < ENTRIES {
            entries.insert(
                key.into(),
                Entry {
                    until: now + time,
                    response: response.to_vec(),
                },
            );
        }
    }
}

/// How long a negative answer may be kept; `None` if it is not one, or says nothing about its life (RFC 2308 §5).
fn negative(response: &[u8]) -> Option<Duration> {
    let message = Message::from_vec(response).ok()?;
    let code = message.metadata.response_code;
    let none =
        code == ResponseCode::NXDomain || (code == ResponseCode::NoError && message.answers.is_empty());
    if !none || message.metadata.truncation {
        return None;
    }
    message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => {
            let seconds = record.ttl.min(soa.minimum);
            Some(Duration::from_secs(seconds.into()).min(MAX_TIME))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::{
        op::{MessageType, OpCode, Query},
        rr::{Name, Record, RecordType, rdata::SOA},
    };

    #[test]
    fn keeps_only_negative_answers_and_only_for_a_while() {
        let name = Name::from_ascii("nothing.example.").unwrap();
        let mut query = Message::new(1, MessageType::Query, OpCode::Query);
        query.add_query(Query::query(name.clone(), RecordType::A));
        let query = query.to_vec().unwrap();
        let mut response = Message::response(1, OpCode::Query);
        response.metadata.response_code = ResponseCode::NXDomain;
        response.add_query(Query::query(name.clone(), RecordType::A));
        let bare = response.to_vec().unwrap();
        let soa = SOA::new(name.clone(), name.clone(), 1, 1, 1, 1, 10);
        response.add_authority(Record::from_rdata(name, 600, RData::SOA(soa)));
        let response = response.to_vec().unwrap();

        let (cache, now) = (Cache::default(), Instant::now());
        cache.put(&query, &bare, now);
        assert_eq!(cache.get(&query, now), None, "without SOA it is not kept");
        cache.put(&query, &response, now);
        let mut again = query.clone();
        again[1] = 9;
        assert_eq!(
            cache.get(&again, now).map(|kept| kept[1]),
            Some(9),
            "with the id of the new query"
        );
        assert!(cache.get(&query, now + Duration::from_secs(11)).is_none());
    }
}
