"""What people ask of a code tree, of a log, and in other languages than English: the right line comes first."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from rlmd.contexts import ContextStore, PathSource

WORDS = "request reply worker cache budget journal session context document passage token socket queue answer".split()  # noqa: SIM905


def filler(number: int) -> str:
    """A line of the text's usual words, which says nothing that is asked for."""
    return " ".join(WORDS[(number * step + step) % len(WORDS)] for step in range(1, 9))


def log() -> str:
    """1,500 lines of a log over ten days, some of which matter."""
    told = {
        133: "ERROR pool: E11000 duplicate key error collection: users index: email_1",
        477: "WARN  net: ERR_CONNECTION_RESET while reading from 10.0.3.17:8080",
        611: "ERROR install failed with code 0x80070005 (access denied)",
        702: "Traceback (most recent call last):",
        703: '  File "/srv/app/views.py", line 88, in render_invoice',
        704: "KeyError: 'customer_id'",
        905: "FATAL Exception in thread main java.lang.NullPointerException",
        906: "    at com.example.billing.InvoiceWriter.flushAll(InvoiceWriter.java:42)",
        1207: "ERROR disk: ORA-00942: table or view does not exist",
    }
    lines = []
    for n in range(1500):
        stamp = f"2024-05-{10 + n // 150:02} {n // 60 % 24:02}:{n % 60:02}:{n * 7 % 60:02}"
        lines.append(f"{stamp} {told.get(n, 'INFO  ' + filler(n))}")
    return "\n".join(lines) + "\n"


CODE = {
    "net/HTTPServer.java": "class HTTPServer {\n  void acceptLoop() { }\n  void closeIdleConnections(int s) { }\n}\n",
    "net/url.py": "class URLParser:\n    def parse_query_string(self, text):\n        return text\n",
    "db/pool.go": "func (p *Pool) AcquireConn(ctx context.Context) (*Conn, error) {\n\treturn p.idle, nil\n}\n",
    "ui/theme.el": "(defun my-theme-load-dark-mode ()\n  (interactive)\n  (load-theme 'modus-vivendi))\n",
    "lib/sha.c": "uint32_t sha256_update(struct sha256_ctx *c, const void *p, size_t n)\n{\n\treturn 0;\n}\n",
    "conf/settings.toml": '[retry]\nmax_attempts = 5\nbackoff_seconds = 1.5\n[log]\nlevel = "info"\n',
}
PROSE = {
    "ja.txt": "朝早く起きた。\n\n東京都の水道料金は二か月ごとに請求される。\n\n猫が窓辺で眠っている。\n",
    "zh.txt": "今天天气很好。\n\n数据库连接池的最大数量可以在配置文件中修改。\n\n我们明天去爬山。\n",
    "ko.txt": "오늘은 날씨가 좋다.\n\n데이터베이스의 비밀번호는 환경 변수에서 읽는다.\n\n고양이가 잔다.\n",
    "th.txt": "วันนี้อากาศดี\n\nรหัสผ่านของฐานข้อมูลอยู่ในไฟล์ตั้งค่า\n\nแมวนอนหลับ\n",
    "words.txt": "犬: a dog\n\n猫: a cat\n",
    "de.txt": "Heute regnet es.\n\nDie Kündigungsfrist für den Mietvertrag beträgt drei Monate.\n\nStraße gesperrt.\n",
    "ru.txt": "Сегодня идёт дождь.\n\nПароль базы данных хранится в файле настроек.\n\nКошка спит.\n",
    "fr.txt": "Il pleut.\n\nLe préavis de résiliation du bail est de trois mois.\n\nL'œuvre est achevée.\n",
}


def usual() -> dict[str, str]:
    """Sixty files of the usual words."""
    return {f"more{n}.txt": "\n\n".join(filler(n * 50 + line) for line in range(40)) + "\n" for n in range(60)}


#: Question → the document and what its first hit must hold.
OF_LOG = {
    "what does E11000 mean here": "E11000",
    "when did ERR_CONNECTION_RESET happen": "ERR_CONNECTION_RESET",
    "connection reset": "ERR_CONNECTION_RESET",
    "0x80070005": "0x80070005",
    "KeyError customer_id in render_invoice": "render_invoice",
    "which line of views.py raised the KeyError": "views.py",
    "null pointer exception in the invoice writer": "InvoiceWriter",
    "InvoiceWriter.java:42": "InvoiceWriter",
    "flush all of billing": "flushAll",
    "ORA-00942": "ORA-00942",
    "10.0.3.17": "10.0.3.17",
    "what happened on 2024-05-17": "2024-05-17",
    "2024-05-13 at 08:20": "2024-05-13 08:20",
}
OF_CODE = {
    "where does the server close idle connections": "HTTPServer",
    "http server": "HTTPServer",
    "url parser": "URLParser",
    "parse the query string": "parse_query_string",
    "parseQueryString": "parse_query_string",
    "acquire a connection from the pool": "AcquireConn",
    "acquire_conn": "AcquireConn",
    "how do I load the dark theme": "my-theme-load-dark-mode",
    "sha256 update": "sha256_update",
    "max_attempts": "max_attempts",
    "maxAttempts": "max_attempts",
    "how many times is it retried": "max_attempts",
}
OF_PROSE = {
    "水道料金はいつ請求されますか": "水道料金",
    "水道": "水道料金",
    "猫": "猫: a cat",
    "连接池数量在哪里修改": "数据库连接池",
    "데이터베이스 비밀번호": "비밀번호",
    "รหัสผ่าน": "รหัสผ่าน",
    "Wie lange ist die Kündigungsfrist": "Kündigungsfrist",
    "kundigungsfrist mietvertrag": "Kündigungsfrist",
    unicodedata.normalize("NFD", "Kündigungsfrist"): "Kündigungsfrist",
    "STRASSE": "Straße",
    "где хранится пароль": "Пароль",
    "préavis du bail": "préavis",
    "oeuvre": "œuvre",
}


@pytest.mark.parametrize(
    ("files", "asked"),
    [({"app.log": log()}, OF_LOG), (CODE | usual(), OF_CODE), (PROSE | usual(), OF_PROSE)],
    ids=["log", "code", "prose"],
)
async def test_the_first_hit_holds_what_was_asked_for(
    tmp_path: Path, files: dict[str, str], asked: dict[str, str]
) -> None:
    for name, text in files.items():
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    store = await ContextStore.open(tmp_path / "state", tmp_path / "cache", tmp_path / "spool")
    try:
        await store.load(PathSource((str(tmp_path / "files"),)), name="files")
        missed = {}
        for question, wanted in asked.items():
            hits, _ = await store.search("files", question, limit=3)
            if not hits or wanted not in hits[0].text:
                missed[question] = [hit.text[:100] for hit in hits]
        assert missed == {}
    finally:
        await store.close()
