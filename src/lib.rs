//! Larder: an edge CDN caching node for static assets.
//!
//! `ARCHITECTURE.md` tells the whole in prose; this is the map. Imports point down only.
//!
//! | layer | modules |
//! |---|---|
//! | the process | `main`, [`cli`] |
//! | the wiring | [`node`], [`config`] |
//! | the control path | [`control`] |
//! | the data path | [`edge`] |
//! | engines, which never import each other | [`net`], [`store`], [`origin`], [`purge`], [`encode`] |
//! | what all may use | [`rules`], [`object`], [`region`], [`telemetry`] |

pub mod cli;
pub mod config;
pub mod control;
pub mod edge;
pub mod encode;
pub mod net;
pub mod node;
pub mod object;
pub mod origin;
pub mod purge;
pub mod region;
pub mod rules;
pub mod store;
pub mod telemetry;
