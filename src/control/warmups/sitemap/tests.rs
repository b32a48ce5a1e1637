use std::fmt::Write as _;
use std::io::Write as _;

use super::*;

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

fn of(text: impl AsRef<[u8]>) -> Result<Sitemap, String> {
    parse(&Bytes::copy_from_slice(text.as_ref()))
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn urls(found: &Sitemap) -> Vec<&str> {
    found.urls.iter().map(|url| &**url).collect()
}

#[test]
fn the_protocols_example_with_extensions() {
    let text = format!(
        "\u{feff}{HEAD}<!-- made --><urlset xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\" xmlns:image=\"i\">
        <url><loc>
            http://a.example/?x=1&amp;y=&#50;
        </loc><lastmod>2005-01-01</lastmod><image:image><image:loc>http://a.example/i.png</image:loc></image:image></url>
        <url><loc><![CDATA[http://a.example/b]]></loc></url><url/><url><loc/></url>
        </urlset>"
    );
    for file in [text.clone().into_bytes(), packed(text.as_bytes())] {
        let found = of(file).unwrap();
        assert_eq!(urls(&found), ["http://a.example/?x=1&y=2", "http://a.example/b"]);
        assert!(found.children.is_empty());
    }
}

#[test]
fn an_index_and_a_list() {
    let index = format!(
        "{HEAD}<s:sitemapindex xmlns:s=\"x\"><s:sitemap><s:loc>http://a.example/1.xml.gz</s:loc></s:sitemap></s:sitemapindex>"
    );
    let found = of(index).unwrap();
    assert_eq!((found.urls.len(), &*found.children[0]), (0, "http://a.example/1.xml.gz"));
    assert_eq!(urls(&of("\n http://a.example/1\r\nhttps://a.example/2\n\n").unwrap_or_default()).len(), 2);
}

#[test]
fn what_is_no_sitemap_says_why() {
    let bomb = packed(format!("{HEAD}<urlset>{}</urlset>", " ".repeat(60 << 20)).as_bytes());
    let own =
        "<!DOCTYPE urlset [<!ENTITY a \"http://a.example/\">]><urlset><url><loc>&a;</loc></url></urlset>";
    let mut many = String::from("<urlset>");
    for n in 0..=MAX_URLS {
        let _ = write!(many, "<url><loc>http://a.example/{n}</loc></url>");
    }
    let rows: [(&[u8], &str); 10] = [
        (b"", "empty"),
        (b" \n ", "empty"),
        (b"Not found", "neither"),
        (b"<html><body>Not found</body></html>", "no sitemap"),
        (b"<urlset><url><loc>http://a.example/</loc>", "before its end"),
        (b"<urlset><url></urlset>", "well-formed"),
        (own.as_bytes(), "entities of its own"),
        (&bomb, "unpacks to more"),
        (&[0x1f, 0x8b, 1, 2, 3], "can't be read"),
        (many.as_bytes(), "more than 50000 URLs"),
    ];
    for (file, why) in rows {
        let error = of(file).unwrap_err();
        assert!(error.contains(why), "{error:?} should say {why:?}");
    }
    let long = format!("<urlset><url><loc>http://a.example/{}</loc></url></urlset>", "x".repeat(9000));
    assert!(of(long).unwrap_err().contains("more than 8192 bytes"));
    let deep = format!("<urlset>{}", "<a>".repeat(20));
    assert!(of(deep).unwrap_err().contains("too deep"));
}

#[test]
fn a_tree_is_bounded() {
    let index = |names: std::ops::Range<usize>| Sitemap {
        children: names.map(|n| format!("http://a.example/{n}").into()).collect(),
        ..Sitemap::default()
    };
    let mut tree = Tree::new("http://a.example/0");
    tree.add(index(0..3), 0).unwrap();
    tree.add(index(0..3), 1).unwrap();
    assert_eq!(tree.left.len(), 3, "each is read once");
    assert!(tree.add(index(0..1), MAX_DEPTH).unwrap_err().contains("deep"));
    assert!(tree.add(index(0..MAX_FILES + 1), 0).unwrap_err().contains("sitemaps"));
    let urls = Sitemap { urls: vec!["x".into(); MAX_URLS + 1], ..Sitemap::default() };
    assert!(Tree::new("x").add(urls, 0).unwrap_err().contains("URLs"));
}
