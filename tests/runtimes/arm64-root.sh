#!/usr/bin/env bash
# Makes an arm64 root with Python 3.11 and two TFLite runtimes, for `qemu-aarch64 -L ROOT`: whole or
# not at all. Packages are only unpacked, so it takes no rights, no chroot and no binfmt_misc.
# Needs Debian 12's package sources, and uv as the second argument.
set -euo pipefail
root=$(realpath -m "$1")
uv=$2

work=$(mktemp -d "$root.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists,archives}/partial "$work/root"
# No package counts as installed, so that apt also fetches what they all depend on.
touch "$work/installed"

arm64_apt() {
  apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User= \
    -o Dir::State="$work" -o Dir::State::status="$work/installed" -o Dir::Cache="$work" "$@"
}
arm64_apt update
arm64_apt install --yes --no-install-recommends --download-only \
  python3.11-minimal libpython3.11-stdlib libstdc++6 >/dev/null
for package in "$work"/archives/*.deb; do
  dpkg-deb --extract "$package" "$work/root"
done

# The newest release under the old name, and LiteRT in the version that the exports are made with.
"$uv" pip install --quiet --python-version 3.11 --python-platform aarch64-manylinux_2_34 \
  --only-binary :all: --constraint constraints.txt \
  --target "$work/root/usr/lib/python3/dist-packages" tflite-runtime==2.14.0 ai-edge-litert

touch "$work/root/.ready"
rm -rf "$root"
mv "$work/root" "$root"
