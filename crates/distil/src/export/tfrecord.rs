//! TFRecord: the framing of TensorFlow's record files, which event files are.
//!
//! ```text
//! u64  length of the data
//! u32  masked CRC-32C of the length's eight bytes
//! u8…  data
//! u32  masked CRC-32C of the data
//! ```
//!
//! All little-endian; masked(c) = rotate_right(c, 15) + 0xa282ead8 (mod 2³²), so that the checksum of
//! bytes that hold a checksum is not a trivial one. Format:
//! <https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details>. CRC-32C is the
//! Castagnoli polynomial, bits reflected: RFC 3720, appendix B.4.

/// Adds a record to a file.
pub(super) fn append(file: &mut Vec<u8>, data: &[u8]) {
    let length = (data.len() as u64).to_le_bytes();
    file.extend(length);
    file.extend(masked(crc32c(&length)).to_le_bytes());
    file.extend(data);
    file.extend(masked(crc32c(data)).to_le_bytes());
}

fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, &byte: &u8| TABLE[(crc as u8 ^ byte) as usize] ^ (crc >> 8);
    !bytes.iter().fold(!0, step)
}

/// What eight steps of the shift register do to each byte.
const TABLE: [u32; 256] = {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (POLYNOMIAL * (crc & 1));
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of RFC 3720, appendix B.4, and the usual check of a CRC.
    #[test]
    fn checksums_are_those_of_the_rfc() {
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&ascending), 0x46dd_794e);
        assert_eq!(crc32c(&descending), 0x113f_db5c);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_record_is_length_data_and_two_checksums() {
        let mut file = Vec::new();
        append(&mut file, b"123456789");
        assert_eq!(file.len(), 8 + 4 + 9 + 4);
        assert_eq!(file[..8], 9_u64.to_le_bytes());
        assert_eq!(&file[12..21], b"123456789");
        // As TensorBoard's own function masks it.
        assert_eq!(file[21..], 0xc78a_b0e5_u32.to_le_bytes());
    }
}
