//! Tells the crate which commit it is built from, where there is a repository.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=../../.git/logs/HEAD");
    println!("cargo::rerun-if-changed=build.rs");
    let git = Command::new("git").args(["rev-parse", "HEAD"]).output();
    if let Ok(output) = git
        && output.status.success()
        && let Ok(commit) = String::from_utf8(output.stdout)
    {
        println!("cargo::rustc-env=DISTIL_COMMIT={}", commit.trim());
    }
}
