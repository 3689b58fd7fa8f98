//! Protocol buffers as they are written: a message is its fields one after the other, each a key and
//! a value. The key is the field's number and the value's wire type; whole numbers are varints, seven
//! bits a byte, the lowest first.
//!
//! Format: <https://protobuf.dev/programming-guides/encoding/>. Only what event files need is here.

/// Wire types.
const VARINT: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const LENGTH_AND_BYTES: u64 = 2;
const FOUR_BYTES: u64 = 5;

/// A message in the making. Fields are added in the order of their numbers, as other writers do.
#[derive(Debug, Clone, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// A whole number; a zero is left out, since readers assume it.
    pub(super) fn whole(mut self, field: u64, value: u64) -> Self {
        if value != 0 {
            self.key(field, VARINT);
            varint(&mut self.0, value);
        }
        self
    }

    /// A number in 64 bits; a zero is left out, since readers assume it.
    pub(super) fn double(mut self, field: u64, value: f64) -> Self {
        if value != 0.0 {
            self.key(field, EIGHT_BYTES);
            self.0.extend(value.to_le_bytes());
        }
        self
    }

    /// A number in 32 bits, written even if it is zero: one of several that a field may be.
    pub(super) fn float(mut self, field: u64, value: f32) -> Self {
        self.key(field, FOUR_BYTES);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Text or bytes.
    pub(super) fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.key(field, LENGTH_AND_BYTES);
        varint(&mut self.0, value.len() as u64);
        self.0.extend(value);
        self
    }

    /// A message in this one.
    pub(super) fn message(self, field: u64, value: Self) -> Self {
        self.bytes(field, &value.0)
    }

    /// The bytes of the message.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn key(&mut self, field: u64, wire_type: u64) {
        varint(&mut self.0, field << 3 | wire_type);
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the format's description.
    #[test]
    fn the_examples_of_the_specification() {
        let bytes = |message: Message| message.into_bytes();
        assert_eq!(bytes(Message::default().whole(1, 150)), [0x08, 0x96, 0x01]);
        assert_eq!(
            bytes(Message::default().bytes(2, b"testing")),
            b"\x12\x07testing"
        );
        let inner = Message::default().whole(1, 150);
        assert_eq!(
            bytes(Message::default().message(3, inner)),
            [0x1a, 0x03, 0x08, 0x96, 0x01]
        );
        let largest = bytes(Message::default().whole(1, u64::MAX));
        assert_eq!(largest.len(), 11);
        assert_eq!(largest[10], 1);
    }

    #[test]
    fn numbers_are_little_endian_and_zeros_are_assumed() {
        let message = Message::default().double(1, 1.0).float(2, 1.0);
        assert_eq!(
            message.into_bytes(),
            [0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x15, 0, 0, 0x80, 0x3f]
        );
        let zeros = Message::default().whole(1, 0).double(2, 0.0).float(3, 0.0);
        assert_eq!(zeros.into_bytes(), [0x1d, 0, 0, 0, 0]);
    }
}
