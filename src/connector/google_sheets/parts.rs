//! How many rows go in one request.

use serde_json::Value;

/// Rows of one append.
const MOST_ROWS: usize = 500;
/// Bytes of one append's body.
const MOST_BYTES: usize = 2 << 20;

/// Parts of rows that fit into one request each.
pub fn parts(rows: &[Vec<Value>]) -> Vec<std::ops::Range<usize>> {
    let mut parts = Vec::new();
    let (mut first, mut bytes) = (0, 0);
    for (at, row) in rows.iter().enumerate() {
        let size = serde_json::to_vec(row).map_or(0, |json| json.len() + 1);
        if at > first && (at - first >= MOST_ROWS || bytes + size > MOST_BYTES) {
            parts.push(first..at);
            (first, bytes) = (at, 0);
        }
        bytes += size;
    }
    if first < rows.len() {
        parts.push(first..rows.len());
    }
    parts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_are_bounded_in_rows_and_bytes() {
        let small = vec![vec![json!("x")]; 1_201];
        assert_eq!(parts(&small), [0..500, 500..1_000, 1_000..1_201]);
        let large = vec![vec![json!("x".repeat(900_000))]; 5];
        assert_eq!(parts(&large), [0..2, 2..4, 4..5]);
        assert_eq!(parts(&[vec![json!("x".repeat(MOST_BYTES))]]).len(), 1, "one row always goes");
        assert!(parts(&[]).is_empty());
    }
}
