"""The compatibility matrix: what agents' programs are made of runs under the shipped profile.

Each program fails by its exit code, so that a refused system call is not passed over.
"""

import pytest

from tests.support.sandboxes import Bench

BASH = {
    "bash: pipelines, job control, redirections, traps": """
        set -o pipefail -m
        seq 100 | sort -rn | head -1 | grep -qx 100
        sleep 0.1 & wait $!; kill -0 $$
        trap 'exit 0' USR1; (kill -USR1 $$) ; sleep 2; exit 1
    """,
    "coreutils: copy, move, link, times, modes, disk usage": """
        echo a > f; cp -a f g; mv g h; ln f l; ln -s f s; touch -d 2020-01-01 f
        chmod 640 f; chown $(id -u) f; ls -laR . > /dev/null; stat f; df . ; du -s .
        readlink -f s; mkfifo p; mktemp; truncate -s 1M big; dd if=/dev/zero of=z bs=1k count=9
        cp --reflink=auto big big2; shred -u z; tac f; nproc; uname -a; date; id; env; sync f
    """,
    "timeout ends a program, also after a fraction of a second": """
        start=$(date +%s); timeout 0.2 sleep 9 || test $? = 124; test $(date +%s) -lt $((start + 5))
    """,
    "nice, renice and limits": "nice -n 5 true; ulimit -n 100; ulimit -a > /dev/null",
    "tar, gzip and xz": """
        mkdir d; echo a > d/f; ln -s f d/s
        for z in z J; do tar c${z}f a.tar d; rm -r d; tar x${z}f a.tar; test -L d/s; done
    """,
    "find, xargs, sed, awk, diff, grep": """
        mkdir -p a/b; echo x > a/b/f; find . -name f -print0 | xargs -0 -P 4 grep -l x
        sed -i s/x/y/ a/b/f; awk '{exit $1 != "y"}' a/b/f; diff a/b/f <(echo y)
    """,
    "git: commit, branch, merge, clone, worktree, gc": """
        git config --global user.name a; git config --global user.email a@b
        git init -q r; cd r; echo 1 > f; git add f; git commit -qm 1
        git checkout -qb b; echo 2 > g; git add g; git commit -qm 2
        git checkout -q -; git merge -q --no-edit b; git gc -q; git fsck
        cd ..; git clone -q r c; cd c; git worktree add -q ../w; git status --short; git diff HEAD~1
    """,
    "curl to a server of the sandbox's own": """
        python3 -m http.server -b 127.0.0.1 8000 2> /dev/null & sleep 1
        curl -sf http://localhost:8000/ > /dev/null
    """,
    "pip installs a wheel into a virtual environment": """
        mkdir demo-1.0.dist-info
        printf 'Metadata-Version: 2.1\\nName: demo\\nVersion: 1.0\\n' > demo-1.0.dist-info/METADATA
        printf 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n' \
          > demo-1.0.dist-info/WHEEL
        printf 'demo.py,,\\ndemo-1.0.dist-info/METADATA,,\\ndemo-1.0.dist-info/WHEEL,,\\n' \
          > demo-1.0.dist-info/RECORD
        echo 'x = 7' > demo.py
        python3 -c "import zipfile; z = zipfile.ZipFile('demo-1.0-py3-none-any.whl', 'w')
        [z.write(n) for n in ('demo.py', *('demo-1.0.dist-info/' + m
            for m in ('METADATA', 'WHEEL', 'RECORD')))]; z.close()"
        rm demo.py
        python3 -m venv --without-pip --system-site-packages venv
        venv/bin/python -m pip install -q --no-index ./demo-1.0-py3-none-any.whl
        test "$(venv/bin/python -c 'import demo; print(demo.x)')" = 7
    """,
}

PYTHON = {
    "threads and their synchronisation": """
        import concurrent.futures, threading
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(lambda n: n, range(100))) == 4950
        lock = threading.Condition()
        with lock: assert not lock.wait(0.01)
    """,
    "subprocess: pipes, groups, time-outs": """
        import signal, subprocess
        assert subprocess.run(['cat'], input=b'x', capture_output=True).stdout == b'x'
        child = subprocess.Popen(['sleep', '9'], start_new_session=True, close_fds=True)
        try: child.wait(0.05); raise SystemExit(1)
        except subprocess.TimeoutExpired: child.send_signal(signal.SIGTERM); child.wait()
    """,
    "multiprocessing by fork, spawn and forkserver; pools, queues, shared memory": """
        import multiprocessing, multiprocessing.shared_memory
        for how in ('fork', 'spawn', 'forkserver'):
            with multiprocessing.get_context(how).Pool(2) as pool:
                assert pool.map(abs, [-1, -2]) == [1, 2]
        queue = multiprocessing.Queue(); queue.put(1); assert queue.get() == 1
        block = multiprocessing.shared_memory.SharedMemory(create=True, size=4096)
        block.close(); block.unlink()
    """,
    "asyncio: subprocesses, servers, signals, threads": """
        import asyncio, signal, socket
        async def main():
            echo = await asyncio.create_subprocess_exec('echo', 'x', stdout=asyncio.subprocess.PIPE)
            assert (await echo.communicate())[0] == b'x\\n'
            for host in ('127.0.0.1', '::1'):
                try: socket.socket(socket.AF_INET6).bind(('::1', 0))
                except OSError: continue
                server = await asyncio.start_server(lambda r, w: w.close(), host, 0)
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
                assert await reader.read() == b''
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)
            await asyncio.to_thread(print, 'thread')
        asyncio.run(main())
    """,
    "sockets: stream, datagram, unix, with and without a protocol's name": """
        import socket
        for family in (socket.AF_INET, socket.AF_INET6):
            socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP).close()
            socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK).close()
            socket.socket(family, socket.SOCK_DGRAM, socket.IPPROTO_UDP).close()
            socket.socket(family, socket.SOCK_DGRAM).close()
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
            a, b = socket.socketpair(socket.AF_UNIX, kind); a.send(b'x'); assert b.recv(1) == b'x'
        assert socket.getaddrinfo('localhost', 80)[0][4][0] in ('127.0.0.1', '::1')
        try: socket.getaddrinfo('example.invalid', 80); raise SystemExit(1)
        except socket.gaierror: pass
    """,
    "files: temporary, locked, mapped, watched, copied with their metadata": """
        import fcntl, mmap, os, pathlib, shutil, tempfile
        with tempfile.TemporaryDirectory() as folder, open(folder + '/f', 'w+b') as file:
            file.write(b'x' * 8192); file.flush(); os.fsync(file.fileno())
            fcntl.flock(file, fcntl.LOCK_EX); fcntl.lockf(file, fcntl.LOCK_EX)
            mmap.mmap(file.fileno(), 0)[:1]
            shutil.copy2(file.name, folder + '/g'); shutil.copytree(folder, '/tmp/copy')
            os.posix_fallocate(file.fileno(), 0, 9000); os.utime(file.name, (1, 1))
            os.preadv(file.fileno(), [bytearray(4)], 0); os.pwritev(file.fileno(), [b'y'], 0)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            os.copy_file_range(file.fileno(), os.open('/tmp/c', os.O_RDWR | os.O_CREAT), 10, 0)
            with open('/tmp/s', 'wb') as out: os.sendfile(out.fileno(), file.fileno(), 0, 10)
            list(pathlib.Path('/usr/bin').glob('py*')); shutil.rmtree('/tmp/copy')
    """,
    "a terminal of the program's own": """
        import os, pty, sys, termios
        pid, fd = pty.fork()
        if pid == 0: os.execvp('bash', ['bash', '-c', 'stty -a >/dev/null; tty; exit 3'])
        output = b''
        try:
            while piece := os.read(fd, 1024): output += piece
        except OSError: pass
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3 and b'/dev/pts' in output
    """,
    "signals, timers, resource limits, scheduling": """
        import os, resource, signal, time
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.01); signal.pause()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]); os.kill(0, signal.SIGUSR1)
        assert signal.sigtimedwait([signal.SIGUSR1], 1)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); resource.getrusage(0)
        os.sched_setaffinity(0, os.sched_getaffinity(0)); os.nice(1); os.times(); os.getloadavg()
        time.sleep(0.01); os.urandom(8); os.getrandom(8); os.memfd_create('x')
    """,
    "sqlite on disk, in write-ahead mode": """
        import sqlite3
        db = sqlite3.connect('data.db'); db.execute('pragma journal_mode = wal')
        with db: db.execute('create table t (a)'); db.executemany('insert into t values (?)',
            [(n,) for n in range(1000)])
        db.execute('vacuum'); assert db.execute('select sum(a) from t').fetchone() == (499500,)
    """,
    "numpy with threads of BLAS": """
        import numpy
        a = numpy.random.default_rng(1).random((300, 300))
        assert numpy.allclose(a @ numpy.linalg.inv(a), numpy.eye(300), atol=1e-6)
        numpy.save('a', a); assert numpy.load('a.npy', mmap_mode='r').shape == (300, 300)
    """,
    "pandas reads, groups and writes": """
        import pandas
        frame = pandas.DataFrame({'k': list('ab') * 50, 'v': range(100)})
        frame.to_csv('f.csv', index=False); frame.to_json('f.json'); frame.to_pickle('f.pkl')
        assert pandas.read_csv('f.csv').groupby('k').v.sum().tolist() == [2450, 2500]
    """,
    "matplotlib draws": """
        import matplotlib.pyplot as plt
        plt.hist([1, 2, 2]); plt.title('t'); plt.savefig('a.png'); plt.savefig('a.svg')
    """,
}

NODE = {
    "node: promises, timers, files, streams, watchers": """
        const fs = require('fs'), fsp = fs.promises;
        (async () => {
          await fsp.mkdir('d/e', {recursive: true}); await fsp.writeFile('d/f', 'x');
          await fsp.cp('d', 'copy', {recursive: true}); await fsp.rm('d', {recursive: true});
          const watcher = fs.watch('.'); setTimeout(() => watcher.close(), 20);
          await require('stream/promises').pipeline(
            fs.createReadStream('copy/f'), fs.createWriteStream('g'));
          if (fs.readFileSync('g', 'utf8') !== 'x') process.exit(1);
        })();
    """,
    "node: processes, worker threads, cluster of cores": """
        const {execFileSync, spawn} = require('child_process');
        const {Worker} = require('worker_threads');
        if (execFileSync('echo', ['x']).toString() !== 'x\\n') process.exit(1);
        spawn('cat').stdin.end();
        new Worker('require("worker_threads").parentPort.postMessage(1)', {eval: true})
          .on('message', (m) => process.exit(m === 1 ? 0 : 1));
        require('os').cpus();
    """,
    "node: an HTTP server and its fetch": """
        require('http').createServer((q, a) => a.end('hello')).listen(0, '127.0.0.1',
          async function () {
            const answer = await fetch(`http://127.0.0.1:${this.address().port}/`);
            process.exit(await answer.text() === 'hello' ? 0 : 1);
          });
    """,
    "node: compiled JavaScript, WebAssembly, compression, cryptography": """
        let sum = 0; for (let i = 0; i < 1e7; i++) sum += i % 7;
        const module = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]);
        WebAssembly.instantiate(module).catch(() => process.exit(1));
        const zlib = require('zlib'); zlib.gunzipSync(zlib.gzipSync('x'));
        require('crypto').generateKeyPairSync('ed25519'); require('crypto').randomBytes(8);
    """,
}


def _lines(program: str) -> str:
    """Return the program without the indentation it has in this file."""
    return "\n".join(line.removeprefix("        ") for line in program.splitlines())


@pytest.mark.parametrize("program", BASH.values(), ids=BASH.keys())
async def test_shell(bench: Bench, program: str) -> None:
    ran = await bench.bash(f"set -eE\n{_lines(program)}", memory_mb=512)
    assert ran.ending.exit_code == 0, ran.stderr


@pytest.mark.parametrize("program", PYTHON.values(), ids=PYTHON.keys())
async def test_python(bench: Bench, program: str) -> None:
    ran = await bench.python(_lines(program), memory_mb=512)
    assert ran.ending.exit_code == 0, ran.stderr


@pytest.mark.parametrize("program", NODE.values(), ids=NODE.keys())
async def test_node(bench: Bench, program: str) -> None:
    ran = await bench.run(("node", "-e", _lines(program)), memory_mb=512)
    assert ran.ending.exit_code == 0, ran.stderr
