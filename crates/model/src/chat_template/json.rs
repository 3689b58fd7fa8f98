//! JSON text in the layout of Python's `json.dumps`, which chat templates are written against:
//! a space after commas and colons unless indented, and only what JSON itself requires is escaped.

use std::io::{self, Write};

use minijinja::value::Value;
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// Spaces a level beyond which an indent is not meant but hostile.
const WIDEST_INDENT: usize = 64;

/// The options of `json.dumps` that templates use.
pub(super) struct Layout {
    /// Write characters beyond ASCII as `\uXXXX`.
    pub(super) ensure_ascii: bool,
    /// Spaces a level, each item on its own line; without it everything is on one line.
    pub(super) indent: Option<usize>,
    /// Between items and between key and value; by default `", "` (`","` when indented), `": "`.
    pub(super) separators: Option<[String; 2]>,
    /// Write an object's keys in order instead of as they were inserted.
    pub(super) sort_keys: bool,
}

/// `value` as JSON text.
pub(super) fn dumps(value: &Value, layout: &Layout) -> serde_json::Result<String> {
    let mut value = serde_json::to_value(value)?;
    if layout.sort_keys {
        value.sort_all_objects();
    }
    let default_item = if layout.indent.is_some() { "," } else { ", " };
    let (item, key) = match &layout.separators {
        Some([item, key]) => (item.as_str(), key.as_str()),
        None => (default_item, ": "),
    };
    let mut bytes = Vec::new();
    let formatter = PythonFormatter {
        item,
        key,
        indent: layout.indent,
        depth: 0,
        empty: true,
    };
    value.serialize(&mut Serializer::with_formatter(&mut bytes, formatter))?;
    let text = String::from_utf8(bytes).map_err(serde::ser::Error::custom)?;
    Ok(if layout.ensure_ascii {
        escape_beyond_ascii(&text)
    } else {
        text
    })
}

/// Outside strings JSON is ASCII, so every other character is inside one and may be escaped.
fn escape_beyond_ascii(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii() {
            escaped.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    escaped
}

struct PythonFormatter<'a> {
    item: &'a str,
    key: &'a str,
    indent: Option<usize>,
    depth: usize,
    /// Whether the container being written has no item yet.
    empty: bool,
}

impl PythonFormatter<'_> {
    fn open<W: ?Sized + Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.empty = true;
        writer.write_all(bracket)
    }

    fn close<W: ?Sized + Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if !self.empty {
            self.new_line(writer)?;
        }
        self.empty = false;
        writer.write_all(bracket)
    }

    fn begin<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(self.item.as_bytes())?;
        }
        self.empty = false;
        self.new_line(writer)
    }

    fn new_line<W: ?Sized + Write>(&self, writer: &mut W) -> io::Result<()> {
        match self.indent {
            Some(indent) => {
                let width = indent.min(WIDEST_INDENT) * self.depth;
                write!(writer, "\n{}", " ".repeat(width))
            }
            None => Ok(()),
        }
    }
}

impl Formatter for PythonFormatter<'_> {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.begin(writer, first)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.begin(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.key.as_bytes())
    }
}
