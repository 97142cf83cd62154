//! Keeps the process small: no huge pages, and what only the start needed is given back once it is over.

use std::{ffi::c_void, fs, num::NonZeroUsize, ptr::NonNull, time::Duration};

use nix::sys::mman::{MmapAdvise, madvise};

/// The start is over so long after the configuration is there.
const SETTLED: Duration = Duration::from_secs(2);

/// With huge pages the allocator's first touch of an arena would make 2 MiB of it resident.
pub fn use_small_pages() {
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        eprintln!("mesh-proxy: cannot switch huge pages off: {error}");
    }
}

/// Gives back the pages of the program's own file that the start needed (reading a configuration takes megabytes of code and
/// tables that are not needed again). What is needed comes back from the page cache at its next use.
pub async fn settle() {
    tokio::time::sleep(SETTLED).await;
    match fs::read_to_string("/proc/self/smaps") {
        Ok(maps) => file_pages(&maps).into_iter().for_each(give_back),
        Err(error) => tracing::debug!(%error, "cannot read the process's memory map"),
    }
}

/// A part of the address space: address and length.
type Range = (NonZeroUsize, usize);

/// The parts of a memory map (`/proc/PID/smaps`, proc(5)) that are nothing but bytes of a file: never written, not writable.
fn file_pages(maps: &str) -> Vec<Range> {
    let mut found = Vec::new();
    let mut candidate = None;
    for line in maps.lines() {
        if let Some(range) = header(line) {
            candidate = range;
        } else if let Some(rest) = line.strip_prefix("Anonymous:") {
            // Pages of a file that were written (relocations) are anonymous: they must stay.
            let untouched = rest.trim() == "0 kB";
            found.extend(candidate.take().filter(|_| untouched));
        }
    }
    found
}

/// The first line of a mapping; the range is there if it is read-only bytes of a file.
fn header(line: &str) -> Option<Option<Range>> {
    let mut words = line.split_ascii_whitespace();
    let (range, access) = (words.next()?, words.next()?);
    let (start, end) = range.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    let file = words.nth(3).is_some_and(|path| path.starts_with('/'));
    let constant = matches!(access, "r--p" | "r-xp");
    let range = NonZeroUsize::new(start).map(|start| (start, end.saturating_sub(start.get())));
    Some(range.filter(|_| file && constant))
}

#[allow(unsafe_code)]
fn give_back((start, length): Range) {
    let address = NonNull::<c_void>::without_provenance(start);
    // SAFETY: madvise(2) takes addresses, there is no safe form of it. The range is a private, read-only mapping of a file none of
    // whose pages was ever written: MADV_DONTNEED makes the next access read the same bytes from the file again.
    let result = unsafe { madvise(address, length, MmapAdvise::MADV_DONTNEED) };
    if let Err(error) = result {
        tracing::debug!(%error, address = start, "cannot give memory back");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d000-55e000 r--p 00000000 fd:01 12 /usr/local/bin/mesh-proxy
Rss: 4 kB
Anonymous: 0 kB
55e000-560000 r-xp 00001000 fd:01 12 /usr/local/bin/mesh-proxy
Anonymous: 0 kB
560000-561000 r--p 00003000 fd:01 12 /usr/local/bin/mesh-proxy
Anonymous: 4 kB
561000-562000 rw-p 00004000 fd:01 12 /usr/local/bin/mesh-proxy
Anonymous: 0 kB
562000-563000 r--p 00000000 00:00 0
Anonymous: 0 kB
7ff000-800000 r-xp 00000000 00:00 0 [vdso]
Anonymous: 0 kB
";

    #[test]
    fn only_unwritten_bytes_of_files_are_given_back() {
        let ranges: Vec<_> = file_pages(MAPS)
            .into_iter()
            .map(|(start, length)| (start.get(), length))
            .collect();
        assert_eq!(ranges, [(0x55d000, 0x1000), (0x55e000, 0x2000)]);
    }

    #[tokio::test]
    async fn the_program_goes_on() {
        settle().await;
        assert_eq!(format!("{:?}", vec![1, 2]), "[1, 2]");
    }
}
