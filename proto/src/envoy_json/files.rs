//! The descriptors of Envoy's API, as far as they are needed: of the seven hundred files in the set, the ones that
//! define the wanted messages, and what those import. The set is read on the wire level, so that a file nobody needs
//! is skipped, not decoded; comments (half of the set) are dropped.

use std::collections::{HashMap, HashSet};

use prost::{
    Message,
    bytes::Buf,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use prost_reflect::{DescriptorPool, MessageDescriptor};
use prost_types::FileDescriptorProto;

static SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/envoy.bin"));

/// Why the descriptors cannot be read: a defect of the build, not of the input.
#[derive(Debug, thiserror::Error)]
pub enum TypesError {
    #[error("the descriptors of Envoy's API are damaged: {0}")]
    Wire(#[from] prost::DecodeError),
    #[error("the descriptors of Envoy's API do not fit together: {0}")]
    Link(#[from] prost_reflect::DescriptorError),
}

/// Some of the API's types.
#[derive(Default)]
pub struct Types {
    pool: DescriptorPool,
    loaded: HashSet<&'static str>,
    index: Option<Index>,
}

impl Types {
    /// The types with these full names, and all that they are made of. Names that do not exist are left out.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, TypesError> {
        let mut types = Self::default();
        types.add(names)?;
        Ok(types)
    }

    /// Adds more types.
    pub fn add<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) -> Result<(), TypesError> {
        let missing: Vec<&str> = names
            .into_iter()
            .filter(|name| self.message(name).is_none())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        if self.index.is_none() {
            self.index = Some(Index::read()?);
        }
        let Some(index) = &self.index else { return Ok(()) };
        // `Any` and the other well-known types are named by the JSON mapping without being imported.
        let mut wanted: Vec<&'static str> = missing.iter().filter_map(|name| index.file_of(name)).collect();
        let mut files = Vec::new();
        while let Some(name) = wanted.pop() {
            let Some(file) = index.files.get(name).filter(|_| self.loaded.insert(name)) else {
                continue;
            };
            wanted.extend(&file.imports);
            let mut proto = FileDescriptorProto::decode(file.bytes)?;
            proto.source_code_info = None;
            files.push(proto);
        }
        self.pool.add_file_descriptor_protos(files)?;
        Ok(())
    }

    pub fn message(&self, name: &str) -> Option<MessageDescriptor> {
        self.pool.get_message_by_name(name)
    }
}

/// What is in the set, without decoding it.
struct Index {
    files: HashMap<&'static str, File>,
    /// Top-level messages by full name.
    messages: HashMap<String, &'static str>,
}

#[derive(Default)]
struct File {
    bytes: &'static [u8],
    imports: Vec<&'static str>,
}

impl Index {
    fn read() -> Result<Self, prost::DecodeError> {
        let mut index = Self {
            files: HashMap::new(),
            messages: HashMap::new(),
        };
        fields(SET, |number, bytes| {
            if number == 1 {
                index.file(bytes)?;
            }
            Ok(())
        })?;
        Ok(index)
    }

    /// FileDescriptorProto: name = 1, package = 2, dependency = 3, message_type = 4 (DescriptorProto: name = 1).
    fn file(&mut self, bytes: &'static [u8]) -> Result<(), prost::DecodeError> {
        let (mut name, mut package) = ("", "");
        let mut file = File {
            bytes,
            ..File::default()
        };
        let mut messages = Vec::new();
        fields(bytes, |number, value| {
            match number {
                1 => name = text(value),
                2 => package = text(value),
                3 => file.imports.push(text(value)),
                4 => fields(value, |number, value| {
                    if number == 1 {
                        messages.push(text(value));
                    }
                    Ok(())
                })?,
                _ => {}
            }
            Ok(())
        })?;
        for message in messages {
            self.messages.insert(format!("{package}.{message}"), name);
        }
        self.files.insert(name, file);
        Ok(())
    }

    /// The file of a message; of a nested one, the file of the outer.
    fn file_of(&self, name: &str) -> Option<&'static str> {
        let mut name = name;
        loop {
            if let Some(file) = self.messages.get(name) {
                return Some(file);
            }
            name = name.rsplit_once('.')?.0;
        }
    }
}

fn text(bytes: &'static [u8]) -> &'static str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// Calls `each` with number and bytes of the length-delimited fields of a message; others are skipped.
fn fields(
    mut bytes: &'static [u8],
    mut each: impl FnMut(u32, &'static [u8]) -> Result<(), prost::DecodeError>,
) -> Result<(), prost::DecodeError> {
    while bytes.has_remaining() {
        let (number, wire) = decode_key(&mut bytes)?;
        if wire != WireType::LengthDelimited {
            skip_field(wire, number, &mut bytes, DecodeContext::default())?;
            continue;
        }
        let length = decode_varint(&mut bytes)? as usize;
        let Some((value, rest)) = bytes.split_at_checked(length) else {
            // Lets the decoder itself name the defect.
            return FileDescriptorProto::decode(&[0x0a, 0x7f][..]).map(drop);
        };
        each(number, value)?;
        bytes = rest;
    }
    Ok(())
}
