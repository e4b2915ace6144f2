//! What a write that waits for the disk costs on this machine, without anything of ours.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use super::super::figures::Latency;

/// Writes that are measured.
const WRITES: usize = 300;
/// What one commit of a single event appends to the write-ahead log: about six pages of 4 KiB.
const BYTES: usize = 6 * 4_096;

/// Appends to a file in `folder` and waits for the disk, again and again.
pub fn fsync(folder: &Path) -> io::Result<Latency> {
    let path = folder.join("fsync");
    let mut file = OpenOptions::new().create_new(true).append(true).open(&path)?;
    let page = vec![0_u8; BYTES];
    let mut taken_us = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        let began = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        taken_us.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    drop(file);
    std::fs::remove_file(&path)?;
    taken_us.sort_unstable();
    Ok(Latency::of_sorted_us(&taken_us))
}
