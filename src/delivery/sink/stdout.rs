//! Standard output: one line an event, flushed per batch.

use std::io::{self, Write};
use std::sync::Arc;

use super::Lines;

/// Opens the process's standard output, or what stands in for it.
pub type OpenStdout = Arc<dyn Fn() -> Box<dyn Write + Send> + Send + Sync>;

pub(in crate::delivery) struct Stdout {
    out: Box<dyn Write + Send>,
    /// A write broke off within a line.
    torn: bool,
}

impl Stdout {
    pub(in crate::delivery) fn new(open: &OpenStdout) -> Self {
        Self { out: open(), torn: false }
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.out.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.torn = bytes[count - 1] != b'\n';
                    bytes = &bytes[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Lines for Stdout {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut written = || {
            if self.torn {
                self.write_all(b"\n")?;
            }
            self.write_all(lines)?;
            self.out.flush()
        };
        written().map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => io::Error::new(
                error.kind(),
                "the reader of standard output has gone; events wait in the store",
            ),
            _ => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Takes some bytes a call, and fails now and then.
    #[derive(Clone, Default)]
    struct Moody(Arc<Mutex<(Vec<u8>, u32)>>);

    impl Write for Moody {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut inner = self.0.lock().unwrap();
            inner.1 += 1;
            if inner.1 == 3 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let count = bytes.len().min(4);
            inner.0.extend_from_slice(&bytes[..count]);
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_broke_off_never_merges_with_the_next() {
        let moody = Moody::default();
        let out = moody.clone();
        let mut sink =
            Stdout::new(&(Arc::new(move || Box::new(out.clone()) as Box<dyn Write + Send>) as OpenStdout));
        let error = sink.write(b"0123456789\n").unwrap_err();
        assert!(error.to_string().contains("has gone"), "{error}");
        sink.write(b"0123456789\n").unwrap();
        assert_eq!(moody.0.lock().unwrap().0, b"01234567\n0123456789\n");
    }
}
