# SPDX-License-Identifier: Apache-2.0
"""Certificates by the openssl command."""

import datetime
import pathlib

from .proc import run


class Pair:
    def __init__(self, cert, key):
        self.cert = pathlib.Path(cert)
        self.key = pathlib.Path(key)


class Authority:
    """A CA of our own in a folder of its own; issue() makes leaf certificates."""

    def __init__(self, folder, name="e2e CA", signed_by=None):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cert = self.folder / "ca.pem"
        self._key = self.folder / "ca.key"
        self._count = 0
        if signed_by:
            signed_by.sign_authority(self, name)
            return
        run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-keyout", self._key, "-out", self.cert, "-days", "30",
             "-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE",
             "-addext", "keyUsage=critical,keyCertSign,cRLSign"], check=True)

    def sub(self, folder, name="e2e intermediate"):
        """An authority below this one."""
        return Authority(folder, name, signed_by=self)

    def sign_authority(self, child, name):
        csr, ext = child.folder / "ca.csr", child.folder / "ca.ext"
        ext.write_text("basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n")
        run(["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-keyout", child.folder / "ca.key", "-out", csr, "-subj", f"/CN={name}"], check=True)
        run(["openssl", "x509", "-req", "-in", csr, "-CA", self.cert, "-CAkey", self._key,
             "-set_serial", "0x77", "-days", "30", "-extfile", ext, "-out", child.cert],
            check=True)

    def issue(self, *names, days=30, rsa=False, usage="serverAuth"):
        """A pair for these DNS names and IP addresses; with negative days one that has expired."""
        self._count += 1
        base = self.folder / f"leaf{self._count}"
        key, csr, ext, cert = (base.with_suffix(s) for s in (".key", ".csr", ".ext", ".pem"))
        kind = ["rsa:2048"] if rsa else ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        san = ",".join(("IP:" if n.replace(".", "").isdigit() or ":" in n else "DNS:") + n
                       for n in names)
        ext.write_text(f"subjectAltName={san}\nextendedKeyUsage={usage}\n"
                       "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature,keyEncipherment\n")
        run(["openssl", "req", "-newkey", *kind, "-nodes", "-keyout", key, "-out", csr,
             "-subj", f"/CN={names[0][:60]}"], check=True)
        end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days)
        start = end - datetime.timedelta(60)
        config, database = self.folder / "ca.conf", self.folder / "issued"
        config.write_text(f"[ca]\ndefault_ca=this\n[this]\ndatabase={database}\n"
                          f"new_certs_dir={self.folder}\nrand_serial=yes\ndefault_md=sha256\n"
                          "unique_subject=no\npolicy=names\n[names]\ncommonName=supplied\n")
        database.touch()
        run(["openssl", "ca", "-batch", "-notext", "-config", config, "-cert", self.cert,
             "-keyfile", self._key, "-startdate", f"{start:%Y%m%d%H%M%SZ}",
             "-enddate", f"{end:%Y%m%d%H%M%SZ}", "-extfile", ext, "-in", csr, "-out", cert],
            check=True)
        return Pair(cert, key)
