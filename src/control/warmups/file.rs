//! Warm jobs over restarts: a file each, `warmups/ID.jsonl` in the store's directory. Its first line is what was asked
//! for, made durable before the job is acknowledged; a line follows for each event. What a crash takes of the last
//! lines is asked for again, and is then fresh.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::job::Job;
use super::record::{Event, Spec};

/// Larger files are none of ours.
const MAX_FILE_BYTES: u64 = 128 << 20;
const ENDING: &str = "jsonl";
/// What a response may take from its answer to the disk. Answers noted this shortly before a process ended are asked for
/// again: what they stored may have been lost with it.
const UNSETTLED_MS: u64 = 2000;

/// The directory of the jobs.
#[derive(Clone, Debug)]
pub(super) struct Files {
    directory: PathBuf,
}

impl Files {
    pub(super) fn new(store: &Path) -> Self {
        Self { directory: store.join("warmups") }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.directory.join(id).with_extension(ENDING)
    }

    /// Writes a new job down; durable when it returns.
    pub(super) fn create(&self, spec: &Spec) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let unfinished = self.path(&spec.id).with_extension("new");
        let mut line = serde_json::to_vec(spec)?;
        line.push(b'\n');
        // Header sets are of no concern to others.
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        let written = file.write_all(&line).and_then(|()| file.sync_all());
        let named = written.and_then(|()| fs::rename(&unfinished, self.path(&spec.id)));
        if let Err(error) = named {
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        File::open(&self.directory)?.sync_all()
    }

    /// Writes down what happened since; `is_last`: durably.
    pub(super) fn append(&self, id: &str, lines: &[u8], is_last: bool) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).open(self.path(id))?;
        // What a crash may have left torn ends here.
        file.write_all(&[b"\n", lines].concat())?;
        if is_last { file.sync_data() } else { Ok(()) }
    }

    pub(super) fn remove(&self, id: &str) -> io::Result<()> {
        fs::remove_file(self.path(id))
    }

    /// All jobs, the oldest first. What can't be read is left out, and said.
    pub(super) fn load(&self) -> Vec<Job> {
        let Ok(entries) = fs::read_dir(&self.directory) else { return Vec::new() };
        let mut jobs = Vec::new();
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            match path.extension().and_then(|ending| ending.to_str()) {
                Some(ENDING) => match read(&path) {
                    Ok(job) => jobs.push(job),
                    Err(error) => {
                        tracing::warn!(file = %path.display(), %error, "a warm job can't be read, and is given up");
                    }
                },
                // Never acknowledged.
                Some("new") => drop(fs::remove_file(&path)),
                _ => {}
            }
        }
        jobs.sort_by_key(|job: &Job| job.spec.seq);
        jobs
    }
}

fn read(path: &Path) -> io::Result<Job> {
    let file = File::open(path)?;
    if file.metadata()?.len() > MAX_FILE_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut lines = BufReader::new(file).lines();
    let first = lines.next().ok_or(io::ErrorKind::UnexpectedEof)??;
    let spec: Spec = serde_json::from_str(&first)?;
    let is_own = path.file_stem().is_some_and(|stem| stem == spec.id.as_str());
    if !is_own || spec.fold() == 0 || spec.rate <= 0.0 || spec.concurrency == 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let job = Job::new(spec);
    let events = lines.filter_map(|line| serde_json::from_str(&line.ok()?).ok());
    for event in settled(events.collect()) {
        job.replay(event);
    }
    Ok(job)
}

/// What happened, without what may have to happen again.
fn settled(mut events: Vec<Event>) -> Vec<Event> {
    let time = |event: &Event| if let Event::Reply { t, .. } = event { Some(*t) } else { None };
    let is_over = events.iter().any(|event| matches!(event, Event::Ended { .. }));
    if let Some(last) = events.iter().filter_map(time).max().filter(|_| !is_over) {
        events.retain(|event| time(event).is_none_or(|t| t + UNSETTLED_MS < last));
    }
    events
}

#[cfg(test)]
mod tests {
    use super::super::job::tests::{reply, spec};
    use super::super::record::{Outcome, State};
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("larder-warm-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn jobs_are_found_again_whatever_a_crash_left() {
        let directory = directory("files");
        let files = Files::new(&directory);
        assert!(files.load().is_empty(), "there is no directory yet");
        let job = Job::new(Spec { seq: 2, id: "2-b".into(), ..spec(4, &["br"]) });
        files.create(&job.spec).unwrap();
        files.create(&Spec { seq: 1, id: "1-a".into(), ..spec(1, &["br"]) }).unwrap();
        let event = |n, t| serde_json::to_vec(&Event::Reply { n, t, reply: reply(Outcome::Stored) }).unwrap();
        files.append("2-b", &event(1, 10), false).unwrap();
        // Torn by a crash, and written on to by the next process.
        files.append("2-b", b"{\"reply\":{\"n\":2,\"t", false).unwrap();
        files.append("2-b", &event(3, 20), false).unwrap();
        files.append("2-b", &event(0, 5000), true).unwrap();
        fs::write(directory.join("warmups/3-c.new"), "{").unwrap();
        fs::write(directory.join("warmups/4-d.jsonl"), "{}\n").unwrap();
        let found = files.load();
        let ids: Vec<&str> = found.iter().map(|job| job.spec.id.as_str()).collect();
        assert_eq!(ids, ["1-a", "2-b"]);
        assert_eq!(found[1].todo(), [0, 2], "what was torn, and what may be lost");
        assert_eq!(found[1].state(), State::Queued);
        let ended = Event::Ended { at: 9, state: State::Done, by: None, from: None };
        files.append("2-b", &serde_json::to_vec(&ended).unwrap(), true).unwrap();
        assert_eq!(files.load()[1].todo(), [2], "an end is written when all is");
        files.remove("2-b").unwrap();
        assert_eq!(files.load().len(), 1);
        fs::remove_dir_all(directory).unwrap();
    }
}
