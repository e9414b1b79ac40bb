#!/usr/bin/env bash
# Whether `penstock image check` tells the truth about musl, on a real one.
#
#     benchmarks/musl.sh [DIRECTORY]        (as root, on Debian or Ubuntu amd64; about 10 minutes
#                                            the first time, one minute after that)
#
# No registry of images is asked: a musl and a CPython 3.11 are built from Debian's source
# packages into DIRECTORY (.dev/musl-trixie), with the compiler that is there. That Python takes
# the musllinux wheels of the index and runs them. What `check` says of Alpine is put to the proof:
#
# - requirements-examples.lock (LangChain, numpy, spaCy): what it calls prebuilt or pure is
#   installed without building anything, and every module that the packages bring is imported;
# - lz4: what it says must be compiled is refused without a build, then compiled and imported.
#
# The exit code is 0 when all of it is as `check` said. musl 1.2.5 is that of Alpine 3.20 and newer.
# MUSL_RELEASE=bookworm takes 1.2.3, that of Alpine 3.17, which does not apply packed relocations:
# there the imports of what rule PSI003 names are expected to crash, and the exit code to be 1.
set -euo pipefail

here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
root=$(dirname -- "$here")
release=${MUSL_RELEASE:-trixie}
place=${1:-$root/.dev/musl-$release}
jobs=$(nproc)
host=x86_64-linux-musl

mkdir -p "$place"/{source,log}
place=$(CDPATH='' cd -- "$place" && pwd -P)
prefix=$place/prefix

say() { printf 'musl: %s\n' "$*" >&2; }

# Run one step with its output in a log; at a failure show the log's end.
step() {
    local name=$1
    shift
    [ ! -e "$place/log/$name.done" ] || return 0
    say "$name"
    # Not in a condition, where a shell would go on after a command that fails.
    set +e
    (
        set -e
        "$@"
    ) >"$place/log/$name" 2>&1
    local code=$?
    set -e
    if [ "$code" -ne 0 ]; then
        tail -n 40 "$place/log/$name" >&2
        say "$name failed: all of it stands in $place/log/$name"
        exit 1
    fi
    touch "$place/log/$name.done"
}

# Lists of source packages that leave the machine's own configuration as it is.
apt_sources() {
    mkdir -p "$place"/apt/{lists,cache}/partial
    printf 'deb-src http://deb.debian.org/debian %s main\n' bookworm trixie >"$place/apt/sources.list"
    apt-get "${apt_options[@]}" update
}

fetch() {
    cd "$place/source"
    apt-get "${apt_options[@]}" source --download-only \
        "musl/$release" python3.11/bookworm zlib/bookworm libffi/bookworm openssl/bookworm
    local description
    for description in *.dsc; do
        # Debian's signatures were checked by apt, which knows what the list says of each file.
        [ -d "${description%%_*}" ] || dpkg-source --no-check --extract "$description" "${description%%_*}"
    done
}

build_musl() {
    cd "$place/source/musl"
    ./configure --prefix="$prefix" --syslibdir="$prefix/lib" --enable-wrapper=gcc
    make -j"$jobs" install
    # Kernel headers alone: with the whole of /usr/include glibc's would be found first.
    ln -sfn /usr/include/linux "$prefix/include/linux"
    ln -sfn /usr/include/asm-generic "$prefix/include/asm-generic"
    ln -sfn /usr/include/x86_64-linux-gnu/asm "$prefix/include/asm"
    # Python's configure asks the compiler for its triplet, and stops at one of glibc's; its
    # setup.py asks in another way, and would take glibc's headers from the folder of that name.
    cat >"$prefix/bin/$host-gcc" <<END
#!/bin/sh
case "\$*" in
--print-multiarch) echo '$host' && exit ;;
-print-multiarch) echo none && exit ;;
esac
exec "$prefix/bin/musl-gcc" "\$@"
END
    chmod +x "$prefix/bin/$host-gcc"
}

build_zlib() {
    cd "$place/source/zlib"
    ./configure --prefix="$prefix" --static
    make -j"$jobs" install
}

build_libffi() {
    cd "$place/source/libffi"
    ./configure --prefix="$prefix" --build=$host --host=$host --enable-static --disable-shared \
        --disable-docs --disable-multi-os-directory
    make -j"$jobs" install
}

build_openssl() {
    cd "$place/source/openssl"
    ./Configure linux-x86_64 --prefix="$prefix" --libdir=lib --openssldir=/etc/ssl \
        no-shared no-tests no-engine no-legacy
    make -j"$jobs" build_libs
    make install_dev
}

build_python() {
    cd "$place/source/python3.11"
    ./configure --prefix="$prefix" --build=$host --host=$host --without-ensurepip \
        --with-openssl="$prefix" --disable-test-modules \
        CPPFLAGS="-I$prefix/include" LDFLAGS="-L$prefix/lib" PKG_CONFIG_PATH="$prefix/lib/pkgconfig" \
        LIBFFI_INCLUDEDIR="$prefix/include"
    make -j"$jobs"
    make install
}

need() {
    command -v "$1" >/dev/null || { say "there is no $1: apt install $2"; exit 2; }
}

need gcc gcc
need make make
need dpkg-source dpkg-dev
[ -e /usr/include/linux/limits.h ] || { say "there are no kernel headers: apt install linux-libc-dev"; exit 2; }

apt_options=(
    -o "Dir::Etc::sourcelist=$place/apt/sources.list" -o Dir::Etc::sourceparts=-
    -o "Dir::State::lists=$place/apt/lists" -o "Dir::Cache=$place/apt/cache"
    -o APT::Sandbox::User=root -o Acquire::Retries=3
)
began=$SECONDS
step lists apt_sources
step fetch fetch
step musl build_musl
export CC="$prefix/bin/$host-gcc" CXX="$prefix/bin/$host-gcc" CFLAGS='-O2 -fPIC'
step zlib build_zlib
step libffi build_libffi
step openssl build_openssl
step python build_python
say "$("$prefix/bin/python3.11" -VV) in $prefix, after $((SECONDS - began)) s"

uv=$(command -v uv || echo "$root/.dev/uv/bin/uv")
penstock=$root/.venv/bin/penstock
[ -x "$penstock" ] || { say "there is no .venv: run ./dev test tests/unit/image first"; exit 2; }
python=$place/venv/bin/python
"$uv" venv --quiet --clear --python "$prefix/bin/python3.11" "$place/venv"

# Prints how many packages of a project have each verdict on Alpine.
verdicts() {
    "$penstock" image check "$1" --base alpine --python 3.11 --fail-on never --json >"$place/check.json"
    "$python" - "$place/check.json" <<'END'
import collections, json, sys
packages = json.load(open(sys.argv[1]))["targets"][0]["packages"]
print(dict(collections.Counter(package["verdict"] for package in packages)))
END
}

say "check says of the examples on Alpine: $(verdicts "$root/requirements-examples.lock")"
"$uv" pip install --quiet --python "$python" --no-build --require-hashes \
    --requirement "$root/requirements-examples.lock"
say "installed without a build; importing everything"
imported=$("$python" "$here/import_all.py")
say "$imported"
case $imported in *'"failed": {}'*) ;; *) exit 1 ;; esac

mkdir -p "$place/compiled"
echo "lz4==4.4.5" >"$place/compiled/requirements.txt"
found=$(verdicts "$place/compiled/requirements.txt")
say "check says of lz4 on Alpine: $found"
[ "$found" = "{'compile': 1}" ] || exit 1
if "$uv" pip install --quiet --python "$python" --no-build --requirement "$place/compiled/requirements.txt" 2>/dev/null; then
    say "lz4 was installed without a build, against what check says"
    exit 1
fi
"$uv" pip install --quiet --python "$python" --requirement "$place/compiled/requirements.txt"
"$python" -c 'import lz4.frame; assert lz4.frame.decompress(lz4.frame.compress(b"x" * 99)) == b"x" * 99'
say "lz4 was compiled, and works"
