use proptest::prelude::*;

use super::*;

fn addresses(source: &str, destination: &str) -> Addresses {
    Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn whole(bytes: &[u8]) -> Option<Addresses> {
    match parse(bytes) {
        Ok(Parsed::Header { addresses, length }) if length == bytes.len() => addresses,
        other => panic!("{other:?} of {:?}", String::from_utf8_lossy(bytes)),
    }
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&V2_SIGNATURE[..], &[command, family], &length, rest].concat()
}

#[test]
fn version_1() {
    let v4 = Some(addresses("192.0.2.1:56324", "198.51.100.1:443"));
    assert_eq!(whole(b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"), v4);
    let v6 = Some(addresses("[2001:db8::1]:1", "[2001:db8::2]:65535"));
    assert_eq!(whole(b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n"), v6);
    for unknown in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff:f...f 1 2 3\r\n"] {
        assert_eq!(whole(unknown.as_bytes()), None);
    }
    let longest = format!("PROXY TCP6 {0} {0} 65535 65535\r\n", ["ffff"; 8].join(":"));
    assert!(whole(longest.as_bytes()).is_some());
}

#[test]
fn version_1_that_is_none() {
    for line in [
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 1\r\n",
        "PROXY TCP4  192.0.2.1 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 \r\n",
        "PROXY TCP4 192.0.2.01 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 056324 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 +1 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 1 \r\n",
        "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.1 1 2\r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.1 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "proxy TCP4 192.0.2.1 198.51.100.1 1 2\r\n",
        "GET / HTTP/1.1\r\n",
        "PROXY\r\n",
    ] {
        assert!(parse(line.as_bytes()).is_err(), "{line}");
    }
    let endless = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_MAX_BYTES));
    assert!(parse(endless.as_bytes()).is_err());
    assert!(parse(&endless.as_bytes()[..V1_MAX_BYTES]).is_err());
}

#[test]
fn version_2() {
    let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 4, 1, 187];
    assert_eq!(whole(&v2(0x21, 0x11, &v4)), Some(addresses("192.0.2.1:56324", "198.51.100.1:443")));
    let extended = [&v4[..], &[3, 0, 4, 1, 2, 3, 4]].concat();
    assert_eq!(whole(&v2(0x21, 0x11, &extended)), Some(addresses("192.0.2.1:56324", "198.51.100.1:443")));
    let mut v6 = [0; 36];
    (v6[15], v6[31], v6[33], v6[35]) = (1, 2, 80, 81);
    assert_eq!(whole(&v2(0x21, 0x21, &v6)), Some(addresses("[::1]:80", "[::2]:81")));
    for (command, family, rest) in
        [(0x20, 0x11, &v4[..]), (0x20, 0, &[]), (0x21, 0, &[7, 7]), (0x21, 0x31, &[0; 216])]
    {
        assert_eq!(whole(&v2(command, family, rest)), None);
    }
}

#[test]
fn version_2_that_is_none() {
    let v4 = [0; 12];
    for (command, family, rest) in [
        (0x11, 0x11, &v4[..]),
        (0x22, 0x11, &v4),
        (0x21, 0x12, &v4),
        (0x21, 0x11, &v4[..11]),
        (0x21, 0x21, &[0; 35]),
        (0x20, 0x11, &[0; V2_MAX_REST_BYTES + 1]),
    ] {
        assert!(parse(&v2(command, family, rest)).is_err(), "{command:x} {family:x} {}", rest.len());
    }
}

#[tokio::test]
async fn not_a_byte_too_many_is_read() {
    let headers = [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".to_vec(),
        v2(0x21, 0x11, &[1; 30]),
        v2(0x20, 0, &[]),
    ];
    for header in headers {
        let bytes = [&header[..], b"\r\nGET"].concat();
        let mut stream = &bytes[..];
        read(&mut stream).await.unwrap();
        assert_eq!(stream, b"\r\nGET");
        for end in 0..header.len() {
            assert!(read(&mut &header[..end]).await.is_err());
        }
    }
}

proptest! {
    /// What is missing is never overstated, and what is parsed does not depend on what follows.
    #[test]
    fn prefixes_agree_with_the_whole(rest in proptest::collection::vec(any::<u8>(), 0..60), command: u8, family: u8, kind in 0..3) {
        let bytes = match kind {
            0 => v2(command, family, &rest),
            1 => [V1_PREFIX, &rest, b"\r\n"].concat(),
            _ => rest,
        };
        let parsed = parse(&bytes);
        for end in 0..bytes.len() {
            match parse(&bytes[..end]) {
                Ok(Parsed::More(missing)) => {
                    prop_assert!(missing > 0);
                    if let Ok(Parsed::Header { length, .. }) = parsed {
                        prop_assert!(end + missing <= length);
                    }
                }
                decided => prop_assert_eq!(decided, parsed),
            }
        }
    }
}
