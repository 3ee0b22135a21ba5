//! Sizes and rates as people write them: `"8 GiB"`, `"24 GB/s"`.

use bytesize::ByteSize;

/// Reads a size such as `"8 GiB"` or `"512 MiB"`: a decimal number and a unit, which may not be left out.
/// `None` for anything else, for zero, and for a size that does not fit into 64 bits.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_end();
    let unit = text.get(number.len()..)?.trim_start();
    // bytesize reads "12" as bytes and "12 g" as gigabytes: a config says which it means.
    if !unit.ends_with('B') {
        return None;
    }
    // `bytesize` saturates instead of failing; no real size comes near the end of the range.
    text.parse::<ByteSize>().ok().map(|size| size.as_u64()).filter(|bytes| (1..u64::MAX / 2).contains(bytes))
}

/// Reads a rate such as `"24 GB/s"` and returns bytes per second.
pub fn parse_rate(text: &str) -> Option<u64> {
    parse_bytes(text.trim().strip_suffix("/s")?)
}

/// A size for people: `1.5 GiB`.
pub fn format_bytes(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// A size as data sheets of drives write it: `600.0 TB`.
pub fn format_decimal_bytes(bytes: u64) -> String {
    ByteSize(bytes).display().si().to_string()
}

/// A size as a config writes it, to the byte: `1 MiB`, `1280 KiB`.
pub fn format_exact_bytes(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = units.into_iter().find(|(_, shift)| bytes > 0 && bytes.is_multiple_of(1 << shift));
    let (name, shift) = unit.unwrap_or(("B", 0));
    format!("{} {name}", bytes >> shift)
}

/// A rate for people: `2.1 GB/s`.
pub fn format_rate(bytes_per_second: f64) -> String {
    format!("{}/s", format_decimal_bytes(bytes_per_second as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_unit() {
        assert_eq!(parse_bytes("8 GiB"), Some(8 << 30));
        assert_eq!(parse_bytes("512MiB"), Some(512 << 20));
        assert_eq!(parse_bytes(" 1.5 KiB "), Some(1536));
        assert_eq!(parse_bytes("24 GB"), Some(24_000_000_000));
        assert_eq!(parse_bytes("4096 B"), Some(4096));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in
            ["", "12", "12 parsecs", "GiB", "-1 GiB", "0 B", "1.2.3 GB", "1 GiB/s", "99999999999 EiB", "1 Ƀ"]
        {
            assert_eq!(parse_bytes(text), None, "{text:?}");
        }
    }

    #[test]
    fn exact_sizes_are_read_as_they_were_written() {
        assert_eq!(format_exact_bytes(1 << 20), "1 MiB");
        for bytes in [1, 4095, 4096, 12_288, 5 << 18, 1 << 20, 3 << 30, (1 << 40) + 1] {
            assert_eq!(parse_bytes(&format_exact_bytes(bytes)), Some(bytes), "{bytes}");
        }
    }

    #[test]
    fn rates_need_their_second() {
        assert_eq!(parse_rate("24 GB/s"), Some(24_000_000_000));
        assert_eq!(parse_rate("24 GB"), None);
    }
}
