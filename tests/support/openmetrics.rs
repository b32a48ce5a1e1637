//! Reads the `OpenMetrics` text format, and refuses what is not that.

/// One sample line.
#[derive(Debug)]
pub struct Sample {
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

pub struct Metrics(pub Vec<Sample>);

impl Metrics {
    /// The sum of all samples of a name that carry at least the given labels: `name` or `name{a="b",c="d"}`.
    pub fn sum(&self, selector: &str) -> f64 {
        let (name, labels) = parse_series(selector).expect("a selector");
        let matches = |s: &&Sample| s.name == name && labels.iter().all(|label| s.labels.contains(label));
        self.0.iter().filter(matches).map(|s| s.value).sum()
    }
}

/// Parses a whole exposition; an error names the line that breaks the format.
pub fn parse(text: &str) -> Result<Metrics, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("it does not end in `# EOF`")?;
    let mut samples = Vec::new();
    let mut families: Vec<(String, String)> = Vec::new();
    for line in body.lines() {
        let error = |what: &str| Err(format!("{what}: {line}"));
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            match (words.next(), words.next(), words.next()) {
                (Some("TYPE"), Some(family), Some(kind)) => {
                    if families.iter().any(|(name, _)| name == family) {
                        return error("a family twice");
                    }
                    families.push((family.to_owned(), kind.to_owned()));
                }
                (Some("HELP" | "UNIT"), Some(_), _) => {}
                _ => return error("an unknown comment"),
            }
            continue;
        }
        let Some(sample) = parse_sample(line) else { return error("no sample") };
        let family = families.iter().find(|(family, kind)| belongs(&sample.name, family, kind));
        if family.is_none() {
            return error("a sample without its family");
        }
        samples.push(sample);
    }
    Ok(Metrics(samples))
}

fn belongs(sample: &str, family: &str, kind: &str) -> bool {
    let Some(suffix) = sample.strip_prefix(family) else { return false };
    match kind {
        "counter" => matches!(suffix, "_total" | "_created"),
        "histogram" => matches!(suffix, "_bucket" | "_count" | "_sum" | "_created"),
        "summary" => matches!(suffix, "" | "_count" | "_sum" | "_created"),
        "info" => suffix == "_info",
        _ => suffix.is_empty(),
    }
}

fn parse_sample(line: &str) -> Option<Sample> {
    let end = line.rfind('}').map_or_else(|| line.find(' '), |at| Some(at + 1))?;
    let (name, labels) = parse_series(&line[..end])?;
    let value = line[end..].split_whitespace().next()?.parse().ok()?;
    Some(Sample { name, labels, value })
}

fn parse_series(series: &str) -> Option<(String, Vec<(String, String)>)> {
    let Some((name, rest)) = series.split_once('{') else { return Some((series.to_owned(), Vec::new())) };
    let mut rest = rest.strip_suffix('}')?;
    let mut labels = Vec::new();
    while !rest.is_empty() {
        let (label, tail) = rest.split_once("=\"")?;
        let end = closing_quote(tail)?;
        labels.push((label.to_owned(), tail[..end].to_owned()));
        rest = &tail[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    Some((name.to_owned(), labels))
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let closes = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        closes.then_some(at)
    })
}

#[test]
fn samples_are_summed_by_name_and_labels() {
    let text = "# TYPE larder_hits counter\nlarder_hits_total{a=\"x\",b=\"1\"} 2\nlarder_hits_total{a=\"x\",b=\"2\"} 3\n# EOF\n";
    let metrics = parse(text).expect("valid");
    assert_eq!(metrics.sum("larder_hits_total"), 5.0);
    assert_eq!(metrics.sum("larder_hits_total{b=\"2\"}"), 3.0);
    assert!(parse("larder_x 1\n# EOF\n").is_err());
    assert!(parse("# TYPE larder_x gauge\nlarder_x 1\n").is_err());
}
