//! Labs to test with, and waiting.

use crate::*;

pub(crate) struct Dir(pub(crate) PathBuf);

impl Dir {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("icp-lab-test-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn three(dir: &Path) -> LabConfig {
    let mut config = LabConfig::new(dir);
    config.machines =
        (1..=3).map(|n| MachineSpec::new(format!("m{n}"), Ipv4Addr::new(10, 77, 0, n))).collect();
    config
}

/// Runs `body` on a lab of three machines, of which the first `on` are on, and checks that nothing is left after it.
pub(crate) fn with_lab<F: Future<Output = ()>>(
    config: LabConfig,
    on: usize,
    body: impl FnOnce(LabHandle) -> F,
) {
    let mut before = Traces::now();
    let mut lab = Lab::start(config).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let handle = lab.connect().unwrap();
        for n in 1..=on {
            handle.power_on(&format!("m{n}")).await.unwrap();
        }
        before.take(lab.guard_pid());
        body(handle).await;
        before.take(lab.guard_pid());
    });
    lab.stop().unwrap();
    before.are_all_there_is();
}

pub(crate) fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !is() {
        assert!(Instant::now() < limit, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) async fn eventually_async<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut get: impl FnMut() -> F,
) -> T {
    let limit = Instant::now() + LIMIT;
    loop {
        if let Some(value) = get().await {
            return value;
        }
        assert!(Instant::now() < limit, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn sh(script: &str) -> Spawn {
    Spawn::program("sh").args(["-c", script])
}

pub(crate) async fn output(lab: &LabHandle, machine: &str, script: &str) -> String {
    let output = lab.exec(machine, sh(script), LIMIT).await.unwrap();
    assert!(output.exit.success(), "{script}: {}: {}", output.exit, output.text());
    output.text().trim().to_owned()
}

pub(crate) fn address(n: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(10, 77, 0, n), port).into()
}

/// The first line that a server sends, and the stream.
pub(crate) async fn greeting(lab: &LabHandle, from: Place<'_>, to: SocketAddr) -> Option<String> {
    let stream = lab.tcp_connect(from, to).await.ok()?.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut line = String::new();
    tokio::task::spawn_blocking(move || BufReader::new(stream).read_line(&mut line).ok().map(|_| line))
        .await
        .unwrap()
        .map(|l| l.trim().to_owned())
        .filter(|l| !l.is_empty())
}

pub(crate) async fn start_echo(lab: &LabHandle, machine: &str, port: u16) {
    let process = lab.spawn(machine, Spawn::role("echo").arg(port.to_string())).await.unwrap();
    let log = process.log().unwrap().to_owned();
    eventually_async("the server is ready", || async {
        fs::read_to_string(&log).ok().filter(|t| t.contains("ready"))
    })
    .await;
}
