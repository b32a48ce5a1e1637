//! The few system calls that the standard library does not offer, with its error handling.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

pub fn epoll_create() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; a non-negative result is a descriptor that nobody else owns.
    unsafe {
        let fd = checked(libc::epoll_create1(libc::EPOLL_CLOEXEC) as isize)?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Registers `fd`; its events carry the descriptor itself.
pub fn epoll_add(epoll: &OwnedFd, fd: RawFd, events: u32) -> io::Result<()> {
    let mut event = libc::epoll_event { events, u64: fd as u64 };
    // SAFETY: `event` lives through the call and the kernel copies it.
    checked(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) } as isize)?;
    Ok(())
}

pub fn epoll_wait(epoll: &OwnedFd, events: &mut [libc::epoll_event]) -> io::Result<usize> {
    loop {
        // SAFETY: pointer and length are those of one live slice.
        let ready = unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), events.len() as i32, -1) };
        match checked(ready as isize) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

pub fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of one live slice.
    checked(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) })
}

/// `sendfile(2)` from `offset`, which moves on by what was sent.
pub fn sendfile(fd: RawFd, file: &File, offset: &mut usize, count: usize) -> io::Result<usize> {
    let mut position = *offset as libc::off_t;
    // SAFETY: `position` lives through the call; both descriptors are open.
    let sent = checked(unsafe { libc::sendfile(fd, file.as_raw_fd(), &mut position, count) })?;
    *offset = position as usize;
    Ok(sent)
}

/// A file that lives in memory only.
pub fn memfd(name: &CStr) -> io::Result<File> {
    // SAFETY: `name` ends in NUL; a non-negative result is a descriptor that nobody else owns.
    unsafe {
        let fd = checked(libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) as isize)?;
        Ok(File::from_raw_fd(fd as RawFd))
    }
}

/// The current time as an HTTP date (RFC 9110, section 5.6.7).
pub fn http_date() -> String {
    let mut text = [0u8; 64];
    // SAFETY: `tm` is plain data for which zero is valid; every pointer is to a live local of the stated length, and
    // no other thread changes the locale, which is C as the program never sets one.
    let length = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut parts: libc::tm = std::mem::zeroed();
        libc::gmtime_r(&now, &mut parts);
        libc::strftime(text.as_mut_ptr().cast(), text.len(), c"%a, %d %b %Y %H:%M:%S GMT".as_ptr(), &parts)
    };
    String::from_utf8_lossy(&text[..length]).into_owned()
}

fn checked(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
