//! Metadata values of a GGUF file and the checked reading of them.
//!
//! All numbers are little-endian; a string is a u64 length and that many bytes of UTF-8; an array is a u32
//! type, a u64 length and that many values. Source: the GGUF specification (ggml, `docs/gguf.md`).

/// Arrays in arrays are read to this depth; no known file goes beyond one.
const MAX_DEPTH: usize = 4;

/// One metadata value of a GGUF file.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum GgufValue {
    /// Unsigned integer of 8 bits.
    U8(u8),
    /// Signed integer of 8 bits.
    I8(i8),
    /// Unsigned integer of 16 bits.
    U16(u16),
    /// Signed integer of 16 bits.
    I16(i16),
    /// Unsigned integer of 32 bits.
    U32(u32),
    /// Signed integer of 32 bits.
    I32(i32),
    /// Unsigned integer of 64 bits.
    U64(u64),
    /// Signed integer of 64 bits.
    I64(i64),
    /// Single-precision number.
    F32(f32),
    /// Double-precision number.
    F64(f64),
    /// True or false.
    Bool(bool),
    /// UTF-8 text.
    String(String),
    /// Values of one type.
    Array(Vec<GgufValue>),
}

impl GgufValue {
    /// The text, if this is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, if this is one of any width and not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(value) => Some(value.into()),
            Self::U16(value) => Some(value.into()),
            Self::U32(value) => Some(value.into()),
            Self::U64(value) => Some(value),
            _ => self.as_i64().and_then(|value| value.try_into().ok()),
        }
    }

    /// The integer, if this is one of any width that an i64 holds.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::I8(value) => Some(value.into()),
            Self::I16(value) => Some(value.into()),
            Self::I32(value) => Some(value.into()),
            Self::I64(value) => Some(value),
            Self::U8(value) => Some(value.into()),
            Self::U16(value) => Some(value.into()),
            Self::U32(value) => Some(value.into()),
            Self::U64(value) => value.try_into().ok(),
            _ => None,
        }
    }

    /// The number, if this is a floating-point number or an integer (rounded beyond 2^53).
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::F32(value) => Some(value.into()),
            Self::F64(value) => Some(value),
            Self::U64(value) => Some(value as f64),
            _ => self.as_i64().map(|value| value as f64),
        }
    }

    /// The truth value, if this is one.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// The elements, if this is an array.
    pub fn as_array(&self) -> Option<&[GgufValue]> {
        match self {
            Self::Array(values) => Some(values),
            _ => None,
        }
    }
}

/// Reads a file's header from its first byte on. Every length is checked against the bytes that are left, so
/// that no file, however damaged, makes the reader allocate more than its own size allows for.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    /// Metadata values that may still be read: each takes more memory here than in the file.
    values_left: usize,
}

/// What is wrong at which byte.
pub(crate) type Parsed<T> = Result<T, String>;

impl<'a> Cursor<'a> {
    /// Begins at the first byte; reads at most `values` metadata values.
    pub(crate) fn new(bytes: &'a [u8], values: usize) -> Self {
        Self {
            bytes,
            position: 0,
            values_left: values,
        }
    }

    /// Bytes read so far.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// Bytes not read yet.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.position)
    }

    fn take(&mut self, length: usize) -> Parsed<&'a [u8]> {
        let end = self.position.checked_add(length);
        let taken = end.and_then(|end| self.bytes.get(self.position..end));
        let taken = taken.ok_or_else(|| {
            format!(
                "the file ends within its header, at byte {}",
                self.bytes.len()
            )
        })?;
        self.position += length;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// A u32.
    pub(crate) fn u32(&mut self) -> Parsed<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A u64.
    pub(crate) fn u64(&mut self) -> Parsed<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A u64 that counts things of at least `size` bytes each, all of which must still fit into the file.
    pub(crate) fn count(&mut self, size: usize, what: &str) -> Parsed<usize> {
        let at = self.position;
        let count = self.u64()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.left() / size => Ok(count),
            _ => Err(format!(
                "at byte {at} it announces {count} {what}, but only {} bytes follow",
                self.left()
            )),
        }
    }

    /// A string.
    pub(crate) fn string(&mut self) -> Parsed<String> {
        let length = self.count(1, "bytes of text")?;
        let at = self.position;
        let text = std::str::from_utf8(self.take(length)?);
        text.map(str::to_owned)
            .map_err(|error| format!("the text at byte {at} is not UTF-8 ({error})"))
    }

    /// A value with its type in front.
    pub(crate) fn value(&mut self) -> Parsed<GgufValue> {
        let kind = self.u32()?;
        self.value_of(kind, 0)
    }

    fn value_of(&mut self, kind: u32, depth: usize) -> Parsed<GgufValue> {
        let at = self.position;
        let Some(values_left) = self.values_left.checked_sub(1) else {
            return Err(format!(
                "it has more metadata values than any model needs, at byte {at}"
            ));
        };
        self.values_left = values_left;
        Ok(match kind {
            0 => GgufValue::U8(u8::from_le_bytes(self.array()?)),
            1 => GgufValue::I8(i8::from_le_bytes(self.array()?)),
            2 => GgufValue::U16(u16::from_le_bytes(self.array()?)),
            3 => GgufValue::I16(i16::from_le_bytes(self.array()?)),
            4 => GgufValue::U32(self.u32()?),
            5 => GgufValue::I32(i32::from_le_bytes(self.array()?)),
            6 => GgufValue::F32(f32::from_le_bytes(self.array()?)),
            7 => match self.array::<1>()? {
                [0] => GgufValue::Bool(false),
                [1] => GgufValue::Bool(true),
                [other] => {
                    return Err(format!(
                        "the truth value at byte {at} is {other}, neither 0 nor 1"
                    ));
                }
            },
            8 => GgufValue::String(self.string()?),
            9 => self.array_value(depth)?,
            10 => GgufValue::U64(self.u64()?),
            11 => GgufValue::I64(i64::from_le_bytes(self.array()?)),
            12 => GgufValue::F64(f64::from_le_bytes(self.array()?)),
            other => {
                return Err(format!(
                    "the metadata value at byte {at} is of an unknown type ({other})"
                ));
            }
        })
    }

    fn array_value(&mut self, depth: usize) -> Parsed<GgufValue> {
        let at = self.position;
        if depth >= MAX_DEPTH {
            return Err(format!(
                "arrays are nested more than {MAX_DEPTH} deep at byte {at}"
            ));
        }
        let kind = self.u32()?;
        let smallest = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            9 => 12,
            _ => 8,
        };
        let length = self.count(smallest, "array elements")?;
        if length > self.values_left {
            return Err(format!(
                "it has more metadata values than any model needs, at byte {at}"
            ));
        }
        let values: Parsed<Vec<_>> = (0..length)
            .map(|_| self.value_of(kind, depth + 1))
            .collect();
        Ok(GgufValue::Array(values?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Parsed<GgufValue> {
        Cursor::new(bytes, 100).value()
    }

    /// Type `kind` and the bytes of its value.
    fn value(kind: u32, bytes: &[u8]) -> Vec<u8> {
        [&kind.to_le_bytes(), bytes].concat()
    }

    #[test]
    fn every_type_is_read() {
        let cases: [(u32, Vec<u8>, GgufValue); 12] = [
            (0, vec![200], GgufValue::U8(200)),
            (1, vec![200], GgufValue::I8(-56)),
            (2, vec![1, 2], GgufValue::U16(513)),
            (3, vec![255, 255], GgufValue::I16(-1)),
            (4, vec![0, 0, 1, 0], GgufValue::U32(65536)),
            (5, (-7i32).to_le_bytes().to_vec(), GgufValue::I32(-7)),
            (6, 1e-5f32.to_le_bytes().to_vec(), GgufValue::F32(1e-5)),
            (7, vec![1], GgufValue::Bool(true)),
            (
                8,
                [&2u64.to_le_bytes()[..], "é".as_bytes()].concat(),
                GgufValue::String("é".to_owned()),
            ),
            (
                10,
                u64::MAX.to_le_bytes().to_vec(),
                GgufValue::U64(u64::MAX),
            ),
            (
                11,
                i64::MIN.to_le_bytes().to_vec(),
                GgufValue::I64(i64::MIN),
            ),
            (12, 0.1f64.to_le_bytes().to_vec(), GgufValue::F64(0.1)),
        ];
        for (kind, bytes, expected) in cases {
            assert_eq!(read(&value(kind, &bytes)), Ok(expected));
            assert!(
                read(&value(kind, &bytes[..bytes.len() - 1])).is_err(),
                "type {kind} cut short"
            );
        }
        let array = [
            &4u32.to_le_bytes()[..],
            &2u64.to_le_bytes(),
            &5u32.to_le_bytes(),
            &6u32.to_le_bytes(),
        ]
        .concat();
        assert_eq!(
            read(&value(9, &array)),
            Ok(GgufValue::Array(vec![GgufValue::U32(5), GgufValue::U32(6)]))
        );
    }

    #[test]
    fn hostile_lengths_are_refused_before_anything_is_allocated() {
        for length in [3, u64::MAX, u64::MAX / 8] {
            let text = [&length.to_le_bytes()[..], b"ab"].concat();
            assert!(
                read(&value(8, &text))
                    .unwrap_err()
                    .contains("only 2 bytes follow")
            );
            for kind in [0u32, 4, 8, 9, 10] {
                let array = [&kind.to_le_bytes()[..], &length.to_le_bytes(), b"ab"].concat();
                assert!(read(&value(9, &array)).is_err());
            }
        }
        let long = [&0u32.to_le_bytes()[..], &200u64.to_le_bytes(), &[0; 200]].concat();
        assert!(
            read(&value(9, &long))
                .unwrap_err()
                .contains("more metadata values")
        );
        // An array in an array in an array …
        let nested: Vec<u8> = (0..100)
            .flat_map(|_| value(9, &1u64.to_le_bytes()))
            .collect();
        let nested = [&9u32.to_le_bytes()[..], &nested].concat();
        assert!(read(&nested).unwrap_err().contains("nested"));
    }

    #[test]
    fn unknown_types_and_odd_truth_values_are_refused() {
        assert!(
            read(&value(13, &[0; 8]))
                .unwrap_err()
                .contains("unknown type (13)")
        );
        assert!(
            read(&value(7, &[2]))
                .unwrap_err()
                .contains("neither 0 nor 1")
        );
        assert!(
            read(&value(8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff]))
                .unwrap_err()
                .contains("not UTF-8")
        );
    }

    #[test]
    fn numbers_convert_without_changing() {
        assert_eq!(GgufValue::I32(7).as_u64(), Some(7));
        assert_eq!(GgufValue::I32(-7).as_u64(), None);
        assert_eq!(GgufValue::I8(-7).as_i64(), Some(-7));
        assert_eq!(GgufValue::U64(u64::MAX).as_i64(), None);
        assert_eq!(GgufValue::U16(3).as_f64(), Some(3.0));
        assert_eq!(GgufValue::F32(0.5).as_f64(), Some(0.5));
        assert_eq!(GgufValue::F32(1.0).as_u64(), None);
        assert_eq!(GgufValue::Bool(true).as_bool(), Some(true));
        assert_eq!(GgufValue::U8(1).as_bool(), None);
        assert_eq!(GgufValue::String("a".to_owned()).as_str(), Some("a"));
    }
}
