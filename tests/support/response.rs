//! A response as a client saw it, and what a test asks of it.

#[derive(Clone, Debug, Default)]
pub struct Response {
    pub status: u16,
    /// In the order of arrival, names as they were sent.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Statuses of the interim responses before it.
    pub interim: Vec<u16>,
}

impl Response {
    /// The first field line of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// Every line of this name, joined as RFC 9110 §5.3 allows.
    pub fn joined(&self, name: &str) -> String {
        let lines: Vec<&str> = self
            .fields
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
            .collect();
        lines.join(", ")
    }

    pub fn has(&self, name: &str) -> bool {
        self.field(name).is_some()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {} {}", self.status, self.text()))
    }

    pub fn age(&self) -> Option<u64> {
        self.field("age").map(|age| age.parse().unwrap_or_else(|_| panic!("Age is no number: {age}")))
    }

    /// The parameters of this cache's own member of Cache-Status (RFC 9211), the last of the list.
    pub fn cache_status(&self) -> Vec<String> {
        let joined = self.joined("cache-status");
        let member =
            joined.split(',').map(str::trim).rfind(|member| member.split(';').next() == Some("larder"));
        let Some(member) = member else {
            panic!("no Cache-Status of larder in {self:?}");
        };
        member.split(';').skip(1).map(|parameter| parameter.trim().to_owned()).collect()
    }

    /// The value of one parameter of Cache-Status; empty for a flag.
    pub fn cache_parameter(&self, name: &str) -> Option<String> {
        self.cache_status().into_iter().find_map(|parameter| match parameter.split_once('=') {
            Some((key, value)) if key == name => Some(value.to_owned()),
            None if parameter == name => Some(String::new()),
            _ => None,
        })
    }

    pub fn is_hit(&self) -> bool {
        self.cache_status().first().is_some_and(|parameter| parameter == "hit")
    }

    pub fn is_stored(&self) -> bool {
        self.cache_parameter("stored").is_some()
    }

    #[track_caller]
    pub fn assert_status(&self, status: u16) -> &Self {
        let start: String = self.text().chars().take(300).collect();
        assert_eq!(self.status, status, "{:?} {start}", self.fields);
        self
    }

    #[track_caller]
    pub fn assert_hit(&self) -> &Self {
        assert!(self.is_hit(), "no hit: {} {:?}", self.status, self.fields);
        self
    }

    /// It came from the origin, for this reason (`uri-miss`, `stale`, …).
    #[track_caller]
    pub fn assert_fwd(&self, reason: &str) -> &Self {
        assert_eq!(self.cache_parameter("fwd").as_deref(), Some(reason), "{} {:?}", self.status, self.fields);
        self
    }

    #[track_caller]
    pub fn assert_body(&self, body: impl AsRef<[u8]>) -> &Self {
        super::assert_same_bytes(&self.body, body.as_ref());
        self
    }

    /// Larder itself made this error: Proxy-Status says so (RFC 9209).
    #[track_caller]
    pub fn assert_own_error(&self) -> &Self {
        let proxy_status = self.joined("proxy-status");
        assert!(
            proxy_status.starts_with("larder"),
            "no Proxy-Status of larder: {} {:?}",
            self.status,
            self.fields
        );
        self
    }
}
