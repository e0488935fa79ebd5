"""hub_check.py SARDONYX CHECKPOINT: names of the Hugging Face hub, against a server here that behaves like the hub and,
in each case, misbehaves in one way: redirects to another host, accounts, lost connections, wrong bytes, missing files.
"""
import hashlib
import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin")


class Hub:
    """Two servers: the hub itself and the other host that keeps large files."""

    def __init__(self, files):
        self.files = files  # name -> bytes
        self.token = None  # that is asked for
        self.status = None  # instead of everything
        self.cut = 0  # connections that break in the middle of a large file
        self.ranges = True
        self.damage = False
        self.seen = []  # (server, path, Authorization, Range)
        self.servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler(k)) for k in ("hub", "store")]
        for server in self.servers:
            server.handle_error = lambda *_: None  # clients that hang up
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        self.url, self.store = (f"http://127.0.0.1:{s.server_port}" for s in self.servers)

    def close(self):
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def handler(hub, kind):
        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self.answer(False)

            def do_GET(self):
                self.answer(True)

            def reply(self, status, headers, body=b""):
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def answer(self, get):
                authorization = self.headers.get("Authorization")
                hub.seen.append((kind, self.path, authorization, self.headers.get("Range")))
                if kind == "store":
                    return self.send_file(hub.files[self.path[1:]], {})
                if hub.status:
                    return self.reply(hub.status, {})
                if hub.token and authorization != f"Bearer {hub.token}":
                    return self.reply(401 if not authorization else 403, {})
                if self.path == "/api/models/org/old-name/revision/main":
                    return self.reply(307, {"Location": "/api/models/org/tiny/revision/main"})
                if self.path == "/api/models/org/tiny/revision/main":
                    names = [{"rfilename": name} for name in hub.files]
                    return self.reply(200, {}, json.dumps({"sha": COMMIT, "siblings": names}).encode())
                name = self.path.rpartition(f"/resolve/{COMMIT}/")[2]
                if name not in hub.files:
                    return self.reply(404, {}, b"no")
                if self.path.startswith("/org/old-name/"):
                    return self.reply(307, {"Location": self.path.replace("old-name", "tiny")})
                self.resolve(name, hub.files[name])

            def resolve(self, name, data):
                if not name.endswith(LARGE):
                    etag = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
                    return self.send_file(data, {"ETag": f'W/"{etag}"'})
                linked = {"X-Linked-ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Linked-Size": str(len(data))}
                self.reply(302, {"Location": f"{hub.store}/{name}", "ETag": '"other"', **linked})

            def send_file(self, data, headers):
                begin, large = 0, kind == "store"
                if self.headers.get("Range") and hub.ranges:
                    begin = int(self.headers["Range"][len("bytes=") : -1])
                    headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
                if large and hub.damage:
                    data = data[:-1] + bytes([data[-1] ^ 1])
                cut = large and hub.cut and self.command == "GET"
                body = data[begin:]
                headers["Content-Length"] = str(len(body))
                if not cut:
                    return self.reply(206 if "Content-Range" in headers else 200, headers, body)
                hub.cut -= 1
                self.reply(206 if "Content-Range" in headers else 200, headers, body[: len(body) // 2])
                self.close_connection = True

        return Handler


def read_files(folder):
    files = {}
    for name in os.listdir(folder):
        with open(f"{folder}/{name}", "rb") as f:
            files[name] = f.read()
    return files


def shard(files):
    """The same checkpoint with its weights in two files and an index; the second holds nothing that is needed."""
    files = dict(files)
    weights = files.pop("model.safetensors")
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    names = [name for name in header if name != "__metadata__"]
    empty = b'{"unused":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}     '
    files["a.safetensors"] = weights
    files["b.safetensors"] = len(empty).to_bytes(8, "little") + empty + bytes(4)
    places = {name: "a.safetensors" for name in names} | {"unused": "b.safetensors"}
    files["model.safetensors.index.json"] = json.dumps({"weight_map": places}).encode()
    return files


class Case:
    def __init__(self, sardonyx, files, **behaviour):
        self.sardonyx, self.hub = sardonyx, Hub(files)
        vars(self.hub).update(behaviour)
        self.home = tempfile.TemporaryDirectory()
        self.root = f"{self.home.name}/hub/models--org--tiny"

    def convert(self, name="org/tiny", **variables):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
        environment.update({"HF_HOME": self.home.name, "HF_ENDPOINT": self.hub.url, **variables})
        command = [self.sardonyx, "convert", "--model_name", name, "--output_dir", f"{self.home.name}/out"]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    def blobs(self):
        folder = f"{self.root}/blobs"
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.hub.close()
        self.home.cleanup()


def good(run):
    return run.returncode == 0 and "L1 difference" in run.stdout


def refused(run, *words):
    return run.returncode == 2 and len(run.stderr.splitlines()) == 1 and all(word in run.stderr for word in words)


def check_download(sardonyx, files):
    extra = {"pytorch_model.bin": b"not wanted", "README.md": b"not wanted", "onnx/model.onnx": b"not wanted"}
    with Case(sardonyx, {**files, **extra}, token="secret") as case:
        yield "downloads and converts", good(case.convert(HF_TOKEN="secret"))
        wanted = {name for name in files}
        got = {path.rpartition("/")[2] for server, path, *_ in case.hub.seen if "/resolve/" in path}
        yield "only what is needed", got <= wanted and "model.safetensors" in got
        yield "the token stays on the hub", all((a is None) == (s == "store") for s, _, a, _ in case.hub.seen)
        links = f"{case.root}/snapshots/{COMMIT}"
        yield "snapshots are links", all(os.path.islink(f"{links}/{name}") for name in os.listdir(links))
        with open(f"{case.root}/refs/main") as f:
            yield "refs/main is the commit", f.read() == COMMIT
        yield "nothing is left over", not [b for b in case.blobs() if b.endswith(".incomplete")]
        case.hub.status = 500
        yield "the cache comes first", good(case.convert())
        yield "by HF_HUB_CACHE too", good(case.convert(HF_HOME="/nowhere", HF_HUB_CACHE=f"{case.home.name}/hub"))


def check_kinds(sardonyx, files):
    with Case(sardonyx, shard(files)) as case:
        yield "shards", good(case.convert())
    with Case(sardonyx, {k: v for k, v in files.items() if k != "model.safetensors"}) as case:
        yield "no weights", refused(case.convert(), "neither model.safetensors nor pytorch_model.bin")
    with Case(sardonyx, {**shard(files), "model.safetensors.index.json": b'{"weight_map":{"x":"../../x"}}'}) as case:
        yield "shards elsewhere", refused(case.convert(), "another folder")
    with Case(sardonyx, files) as case:
        yield "a renamed model", good(case.convert("org/old-name"))


def check_refusals(sardonyx, files):
    for status, words in ((404, "no such model"), (403, "terms"), (401, "HF_TOKEN"), (500, "HTTP status 500")):
        with Case(sardonyx, files, status=status) as case:
            yield f"status {status}", refused(case.convert(), words, "org/tiny")
    with Case(sardonyx, files, token="secret") as case:
        yield "no token", refused(case.convert(), "HF_TOKEN")
        yield "another token", refused(case.convert(HF_TOKEN="wrong"), "403")
        yield "offline", refused(case.convert(HF_HUB_OFFLINE="1"), "HF_HUB_OFFLINE")
    with Case(sardonyx, files) as case:
        yield "no name", refused(case.convert("../org/tiny"), "no name of a model")
        yield "no server", refused(case.convert(HF_ENDPOINT="http://127.0.0.1:1"), "downloading it failed")
        yield "no such protocol", refused(case.convert(HF_ENDPOINT="file:///etc"), "downloading it failed")


def check_accidents(sardonyx, files):
    with Case(sardonyx, files, cut=2) as case:
        yield "goes on after a lost connection", good(case.convert())
        yield "where it was", len({r for server, *_, r in case.hub.seen if server == "store" and r}) == 2
    with Case(sardonyx, files, cut=9) as case:
        yield "gives up", refused(case.convert(), "downloading it failed")
        yield "and keeps what it has", any(b.endswith(".incomplete") for b in case.blobs())
        case.hub.cut = 0
        case.hub.seen.clear()
        yield "the next call goes on", good(case.convert()) and any(r for *_, r in case.hub.seen)
    with Case(sardonyx, files, cut=1, ranges=False) as case:
        yield "a server without ranges", good(case.convert())
    with Case(sardonyx, files, damage=True) as case:
        yield "a wrong checksum", refused(case.convert(), "checksum")
        yield "leaves nothing", not any(b.endswith(".incomplete") for b in case.blobs())
        case.hub.damage = False
        yield "and comes right next time", good(case.convert())


def main(sardonyx, checkpoint):
    files, passed, failed = read_files(checkpoint), 0, 0
    for check in (check_download, check_kinds, check_refusals, check_accidents):
        for name, holds in check(sardonyx, files):
            passed, failed = passed + bool(holds), failed + (not holds)
            if not holds:
                print(f"FAILED hub: {name}")
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
