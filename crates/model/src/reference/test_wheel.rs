//! Wheels for tests.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zip::write::{SimpleFileOptions, ZipWriter};

use super::cache;
use super::catalogue::Pinned;

/// A wheel as pip accepts it, with these files in it.
pub(crate) fn wheel(folder: &Path, files: &[(&str, &[u8])]) -> PathBuf {
    let path = folder.join("tiny_model-1.0-py3-none-any.whl");
    let mut archive = ZipWriter::new(File::create(&path).unwrap());
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    let about: [(&str, &[u8]); 3] = [
        (
            "tiny_model-1.0.dist-info/METADATA",
            b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        ),
        (
            "tiny_model-1.0.dist-info/WHEEL",
            b"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        ),
        ("tiny_model-1.0.dist-info/RECORD", b""),
    ];
    for (name, content) in files.iter().chain(&about) {
        archive.start_file(*name, options).unwrap();
        archive.write_all(content).unwrap();
    }
    archive.finish().unwrap();
    path
}

/// `tiny_model/weights.gguf` pinned to this content.
pub(crate) fn pin(content: &[u8]) -> Pinned {
    let digest = cache::hexadecimal(Sha256::new_with_prefix(content));
    Pinned {
        path: "tiny_model/weights.gguf",
        bytes: content.len() as u64,
        sha256: Box::leak(digest.into_boxed_str()),
    }
}
