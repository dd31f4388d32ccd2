//! YAML text as a tree whose nodes know where they stand.
//!
//! The parser under serde keeps line and column to itself and reveals them only in errors. So the tree numbers its
//! nodes in reading order, and [`Document::place`] reads the text again with a visitor that fails at one number: the
//! place in that error is the parser's own, and is right in flow maps, behind quotes, comments and aliases alike.

use std::fmt;

use serde::Deserialize as _;
use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, Visitor};

/// Largest configuration text, in bytes.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// Nodes of one document at most, with every alias counted as often as it is used.
const NODES_MAX: u32 = 100_000;
/// Bytes of a document's values beyond twice its text, with every alias counted as often as it is used: an escape can
/// grow to twice its size, and anything above comes from aliases.
const ALIAS_BYTES_MAX: usize = 64 << 10;

/// A line and a column of a text, both from 1; the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Number of a node in reading order; keys are nodes too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId(u32);

/// A value with its number.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) value: Yaml,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Yaml {
    Null,
    Bool(bool),
    Whole(i128),
    Real(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One `key: value` of a map.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_id: NodeId,
    pub(crate) value: Node,
}

impl Yaml {
    /// The text, when it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The value as a person would write it, cut to a line.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Whole(value) => value.to_string(),
            Self::Real(value) => value.to_string(),
            Self::Text(value) if value.chars().count() > 60 => {
                format!("{:?}…", value.chars().take(60).collect::<String>())
            }
            Self::Text(value) => format!("{value:?}"),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a map".to_owned(),
        }
    }
}

/// Why a text is not a document of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct SyntaxError {
    pub(crate) message: String,
    pub(crate) place: Option<Place>,
}

/// A parsed text.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    text: String,
    /// [`Yaml::Null`] for an empty text.
    pub(crate) root: Node,
}

impl Document {
    /// Parses one YAML document of at most [`TEXT_BYTES_MAX`].
    pub(crate) fn parse(text: &str) -> Result<Self, SyntaxError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(SyntaxError {
                message: format!("the text takes {} bytes, the limit is {TEXT_BYTES_MAX}", text.len()),
                place: None,
            });
        }
        let mut documents = serde_yaml::Deserializer::from_str(text);
        let Some(first) = documents.next() else {
            return Ok(Self { text: text.to_owned(), root: Node { id: NodeId(0), value: Yaml::Null } });
        };
        let root = Walk::new(text, None).node(first).map_err(|error| syntax_error(&error))?;
        if let Some(second) = documents.next() {
            serde::de::IgnoredAny::deserialize(second).map_err(|error| syntax_error(&error))?;
            return Err(SyntaxError {
                message: "there is a second document after `---`; a configuration is one document".to_owned(),
                place: None,
            });
        }
        Ok(Self { text: text.to_owned(), root })
    }

    /// A document that is this text, whatever YAML would make of it.
    pub(crate) fn of_text(text: &str) -> Self {
        Self { text: text.to_owned(), root: Node { id: NodeId(0), value: Yaml::Text(text.to_owned()) } }
    }

    /// Whether its value is a text of which `source`, from which it was parsed, holds more: the rest was taken for a comment.
    pub(crate) fn is_cut(&self, source: &str) -> bool {
        let source = source.trim();
        let is_begin = |text: &str| !text.is_empty() && text.len() < source.len() && source.starts_with(text);
        self.root.value.text().is_some_and(is_begin)
    }

    /// Where `node` stands. `None` only for an empty text.
    pub(crate) fn place(&self, node: NodeId) -> Option<Place> {
        let document = serde_yaml::Deserializer::from_str(&self.text).next()?;
        let error = Walk::new(&self.text, Some(node.0)).node(document).err()?;
        place_of(&error)
    }

    /// The text that `node` holds; `None` where it holds none.
    pub(crate) fn text_of(&self, node: NodeId) -> Option<&str> {
        fn find(from: &Node, id: NodeId) -> Option<&Node> {
            if from.id == id {
                return Some(from);
            }
            match &from.value {
                Yaml::List(items) => items.iter().find_map(|item| find(item, id)),
                Yaml::Map(entries) => entries.iter().find_map(|entry| find(&entry.value, id)),
                Yaml::Null | Yaml::Bool(_) | Yaml::Whole(_) | Yaml::Real(_) | Yaml::Text(_) => None,
            }
        }
        find(&self.root, node)?.value.text()
    }

    /// The text of a line, from 1.
    pub(crate) fn line(&self, line: usize) -> Option<&str> {
        self.text.lines().nth(line.checked_sub(1)?)
    }
}

fn place_of(error: &serde_yaml::Error) -> Option<Place> {
    error.location().map(|at| Place { line: at.line(), column: at.column() })
}

fn syntax_error(error: &serde_yaml::Error) -> SyntaxError {
    let place = place_of(error);
    let mut message = error.to_string();
    if let Some(place) = place {
        // The parser repeats the place in its text; ours is printed in front.
        let tail = format!(" at line {} column {}", place.line, place.column);
        message = message.replacen(&tail, "", 1);
    }
    SyntaxError { message, place }
}

/// One reading of a document: numbers the nodes, or fails at one of them.
struct Walk {
    count: u32,
    fail_at: Option<u32>,
    /// Bytes that values may still take.
    bytes_left: usize,
}

impl Walk {
    fn new(text: &str, fail_at: Option<u32>) -> Self {
        Self { count: 0, fail_at, bytes_left: 2 * text.len() + ALIAS_BYTES_MAX }
    }

    /// Takes the bytes of a text from what is left.
    fn spend<E: de::Error>(&mut self, bytes: usize) -> Result<(), E> {
        self.bytes_left = self
            .bytes_left
            .checked_sub(bytes)
            .ok_or_else(|| E::custom("its aliases repeat more text than a document may hold"))?;
        Ok(())
    }

    fn node<'de, D: Deserializer<'de>>(&mut self, from: D) -> Result<Node, D::Error> {
        NodeSeed(self).deserialize(from)
    }

    fn number<E: de::Error>(&mut self) -> Result<NodeId, E> {
        let id = self.count;
        if self.fail_at == Some(id) {
            return Err(E::custom("here"));
        }
        if id >= NODES_MAX {
            return Err(E::custom(format_args!("the document has more than {NODES_MAX} values")));
        }
        self.count += 1;
        Ok(NodeId(id))
    }
}

struct NodeSeed<'a>(&'a mut Walk);

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Node, D::Error> {
        from.deserialize_any(self)
    }
}

impl NodeSeed<'_> {
    fn leaf<E: de::Error>(self, value: Yaml) -> Result<Node, E> {
        Ok(Node { id: self.0.number()?, value })
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        self.leaf(Yaml::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        self.leaf(Yaml::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        self.leaf(Yaml::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        self.leaf(Yaml::Whole(i128::from(value)))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        self.leaf(Yaml::Whole(i128::from(value)))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Node, E> {
        self.leaf(Yaml::Whole(value))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Node, E> {
        self.leaf(Yaml::Whole(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        self.leaf(Yaml::Real(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        self.0.spend(value.len())?;
        self.leaf(Yaml::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let id = self.0.number()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(NodeSeed(self.0))? {
            list.push(item);
        }
        Ok(Node { id, value: Yaml::List(list) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let id = self.0.number()?;
        let mut map: Vec<Entry> = Vec::new();
        while let Some((key, key_id)) = entries.next_key_seed(KeySeed(self.0))? {
            let value = entries.next_value_seed(NodeSeed(self.0))?;
            map.push(Entry { key, key_id, value });
        }
        Ok(Node { id, value: Yaml::Map(map) })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Node, A::Error> {
        Err(de::Error::custom("tags (`!name`) have no meaning here; remove the tag"))
    }
}

/// Reads a map's key: text only.
struct KeySeed<'a>(&'a mut Walk);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = (String, NodeId);

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(String, NodeId), D::Error> {
        from.deserialize_any(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = (String, NodeId);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<(String, NodeId), E> {
        self.0.spend(key.len())?;
        let id = self.0.number()?;
        Ok((key.to_owned(), id))
    }
}
