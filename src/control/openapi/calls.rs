//! The table of calls. Who adds a route adds a line.

/// A call as it is documented.
pub(super) struct Call {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    /// Unique.
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) scope: Scope,
    /// Name, JSON type, description.
    pub(super) query: &'static [(&'static str, &'static str, &'static str)],
    /// Name and description of fields.
    pub(super) fields: &'static [(&'static str, &'static str)],
    /// The name of a schema, and whether there has to be one.
    pub(super) body: Option<(&'static str, bool)>,
    /// Status, description, media type, the name of a schema or `string`.
    pub(super) answers: &'static [(u16, &'static str, &'static str, &'static str)],
    /// Where it is a call of another cache's API: the schema of its errors there. It takes that API's token fields, too.
    pub(super) foreign_error: Option<&'static str>,
}

/// What a token needs.
#[derive(PartialEq, Eq)]
pub(super) enum Scope {
    /// No token.
    Open,
    Needs(&'static str),
}

pub(super) const JSON: &str = "application/json";
const TEXT: &str = "text/plain";
pub(super) const LIMIT: (&str, &str, &str) =
    ("limit", "integer", "Items of a page, 1 to 1000; 100 by default");
pub(super) const AFTER: (&str, &str, &str) = ("after", "string", "`next` of the page before");
const SITE: (&str, &str, &str) = ("site", "string", "Only what belongs to this site");

pub(super) const GET: Call = Call {
    method: "get",
    path: "",
    id: "",
    summary: "",
    scope: Scope::Needs("read"),
    query: &[],
    fields: &[],
    body: None,
    answers: &[],
    foreign_error: None,
};

pub(super) const CALLS: &[Call] = &[
    Call {
        method: "post",
        path: "/v1/purges",
        id: "createPurge",
        summary: "Purge; or, as a dry run, count what a purge would hit",
        scope: Scope::Needs("purge (purge:all for all)"),
        body: Some(("PurgeRequest", true)),
        answers: &[
            (200, "A dry run: nothing was purged", JSON, "DryRun"),
            (201, "Durable and in effect; Location names it", JSON, "Purge"),
        ],
        ..GET
    },
    Call {
        path: "/v1/purges",
        id: "listPurges",
        summary: "Past purges, the newest first",
        scope: Scope::Needs("read or purge"),
        query: &[LIMIT, AFTER],
        answers: &[(200, "A page", JSON, "PurgePage")],
        ..GET
    },
    Call {
        path: "/v1/purges/{id}",
        id: "showPurge",
        summary: "A past purge with all its entries",
        scope: Scope::Needs("read or purge"),
        answers: &[(200, "The purge", JSON, "Purge")],
        ..GET
    },
    Call {
        path: "/v1/objects",
        id: "listObjects",
        summary: "What is held, by variant: of a URL, or page by page of a prefix, a tag or a site",
        query: &[
            ("url", "string", "A URL as clients ask for it"),
            ("prefix", "string", "host/path in whole segments"),
            ("tag", "string", "Everything with this tag"),
            SITE,
            LIMIT,
            AFTER,
        ],
        answers: &[(
            200,
            "A page; it may have fewer items than asked for and a next one",
            JSON,
            "ObjectPage",
        )],
        ..GET
    },
    Call {
        path: "/v1/tags",
        id: "listTags",
        summary: "The tags in use, in order, and how many objects have each",
        query: &[SITE, ("prefix", "string", "What the tags begin with"), LIMIT, AFTER],
        answers: &[(200, "A page", JSON, "TagPage")],
        ..GET
    },
    Call {
        path: "/v1/audit",
        id: "listAudit",
        summary: "Who changed or tried to change what, the newest first",
        query: &[
            SITE,
            ("action", "string", "purge, soft-purge, warm and the like"),
            ("outcome", "string", "applied, not-durable, accepted or refused"),
            LIMIT,
            AFTER,
        ],
        answers: &[(200, "A page", JSON, "AuditPage")],
        ..GET
    },
    Call {
        method: "post",
        path: "/v1/explain",
        id: "explain",
        summary: "How the node would treat a request, and why; asks the origin where nothing stored would be used",
        body: Some(("ExplainRequest", true)),
        answers: &[(200, "The explanation", JSON, "Explanation")],
        ..GET
    },
    Call {
        path: "/v1/status",
        id: "status",
        summary: "The node at a glance",
        answers: &[(200, "Its figures", JSON, "Status")],
        ..GET
    },
    Call {
        path: "/v1/origins",
        id: "listOrigins",
        summary: "The origins' servers and their state",
        answers: &[(200, "All of them", JSON, "OriginList")],
        ..GET
    },
    Call {
        path: "/healthz",
        id: "health",
        summary: "Whether the process lives",
        scope: Scope::Open,
        answers: &[(200, "It does", TEXT, "string")],
        ..GET
    },
    Call {
        path: "/readyz",
        id: "readiness",
        summary: "Whether it takes requests, and the state of each part",
        scope: Scope::Open,
        answers: &[(200, "It does", JSON, "Readiness"), (503, "It drains, or starts", JSON, "Readiness")],
        ..GET
    },
    Call {
        path: "/metrics",
        id: "metrics",
        summary: "OpenMetrics",
        scope: Scope::Open,
        answers: &[(200, "All metrics", "application/openmetrics-text", "string")],
        ..GET
    },
    Call {
        path: "/openapi.json",
        id: "openapi",
        summary: "This document",
        scope: Scope::Open,
        answers: &[(200, "OpenAPI 3.1", JSON, "OpenApi")],
        ..GET
    },
];
