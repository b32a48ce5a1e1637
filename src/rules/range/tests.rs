use proptest::prelude::*;

use super::*;

fn asked(value: &str, length: u64) -> Requested {
    parse(&HeaderMap::from_iter([(RANGE, HeaderValue::from_str(value).unwrap())]), length)
}

#[test]
fn single_ranges() {
    assert_eq!(asked("bytes=0-1", 10), Requested::Single(0..2));
    assert_eq!(asked("bytes=1-", 10), Requested::Single(1..10));
    assert_eq!(asked("bytes=-1", 10), Requested::Single(9..10));
    assert_eq!(asked("bytes=-100", 10), Requested::Single(0..10));
    assert_eq!(asked("bytes=5-99999999999999999999999", 10), Requested::Single(5..10));
    assert_eq!(asked("BYTES=0-0", 10), Requested::Single(0..1));
    assert_eq!(asked("bytes= 0-0 ,", 10), Requested::Single(0..1));
}

#[test]
fn unsatisfiable_ranges() {
    for value in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999-", "bytes=10-,11-"] {
        assert_eq!(asked(value, 10), Requested::Unsatisfiable, "{value}");
    }
    assert_eq!(asked("bytes=0-", 0), Requested::Unsatisfiable);
    assert_eq!(asked("bytes=-5", 0), Requested::Ignored);
}

#[test]
fn what_is_malformed_is_ignored() {
    for value in [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=a-",
        "bytes=2-1",
        "bytes=1",
        "bytes=0-1,x",
        "bytes = 0-1",
        "items=0-1",
        "bytes=0 - 1",
        "bytes=+0-1",
        "bytes=0-1-2",
        "bytes=--1",
    ] {
        assert_eq!(asked(value, 10), Requested::Ignored, "{value}");
    }
    let two = HeaderMap::from_iter([(RANGE, HeaderValue::from_static("bytes=0-1"))]);
    let mut lines = two.clone();
    lines.append(RANGE, HeaderValue::from_static("bytes=3-4"));
    assert_eq!(parse(&lines, 10), Requested::Ignored);
    assert_eq!(parse(&HeaderMap::new(), 10), Requested::Ignored);
}

#[test]
fn several_ranges_are_sorted_and_coalesced() {
    assert_eq!(asked("bytes=6-7, 0-1", 10), Requested::Multiple(vec![0..2, 6..8]));
    assert_eq!(asked("bytes=0-1,2-3", 10), Requested::Single(0..4));
    assert_eq!(asked("bytes=0-3,2-5", 10), Requested::Single(0..6));
    assert_eq!(asked("bytes=0-1,20-", 10), Requested::Single(0..2));
    assert_eq!(asked("bytes=0-0,-1", 10), Requested::Multiple(vec![0..1, 9..10]));
}

#[test]
fn abuse_is_ignored() {
    let list = |count: usize| {
        format!(
            "bytes={}",
            (0..count).map(|i| format!("{}-{}", i * 10, i * 10)).collect::<Vec<_>>().join(",")
        )
    };
    assert!(matches!(asked(&list(16), 1 << 20), Requested::Multiple(ranges) if ranges.len() == 16));
    assert_eq!(asked(&list(17), 1 << 20), Requested::Ignored);
    assert_eq!(asked(&list(1000), 1 << 20), Requested::Ignored);
    assert_eq!(asked("bytes=0-,0-", 10), Requested::Ignored);
}

#[test]
fn content_ranges() {
    assert_eq!(content_range(&(0..2), 10), "bytes 0-1/10");
    assert_eq!(content_range(&(3..3), 10), "bytes */10");
    assert_eq!(unsatisfied(u64::MAX), "bytes */18446744073709551615");
    let read = |text| parse_content_range(&HeaderValue::from_static(text));
    assert_eq!(read("bytes 0-1/10"), Some(ContentRange { first: 0, last: 1, complete: Some(10) }));
    assert_eq!(read("Bytes 0-1/*"), Some(ContentRange { first: 0, last: 1, complete: None }));
    for text in [
        "",
        "bytes */10",
        "bytes 2-1/10",
        "bytes 0-10/10",
        "items 0-1/10",
        "bytes 0-1",
        "bytes=0-1/10",
        "bytes 0-1/99999999999999999999",
    ] {
        assert_eq!(read(text), None, "{text}");
    }
}

fn check(requested: &Requested, length: u64) {
    let ranges = match requested {
        Requested::Single(range) => std::slice::from_ref(range),
        Requested::Multiple(ranges) => {
            assert!((2..=MAX_RANGES).contains(&ranges.len()));
            ranges
        }
        _ => return,
    };
    assert!(ranges.iter().all(|range| range.start < range.end && range.end <= length));
    assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "disjoint and not adjacent");
}

proptest! {
    #[test]
    fn ranges_stay_within_bounds(value in "bytes=([0-9]{0,3}-[0-9]{0,3}, ?){0,20}[0-9]{0,3}-[0-9]{0,3}", length in 0..1200_u64) {
        check(&asked(&value, length), length);
    }

    #[test]
    fn any_field_is_survived(value in "[ -~]{0,40}", length: u64) {
        check(&asked(&value, length), length);
        check(&asked(&format!("bytes={value}"), length), length);
        let _ = parse_content_range(&HeaderValue::from_str(&value).unwrap());
    }

    #[test]
    fn a_written_content_range_is_read(first in 0..u64::MAX / 2, more in 0..u64::MAX / 4, rest in 1..u64::MAX / 8) {
        let complete = first + more + rest;
        let written = content_range(&(first..first + more + 1), complete);
        let read = parse_content_range(&written);
        prop_assert_eq!(read, Some(ContentRange { first, last: first + more, complete: Some(complete) }));
    }
}
