#!/bin/bash
# Puts the Headstart agent's binary in place. systemd runs it before every start of the agent; when the wanted one is
# there it ends at once. HEADSTART_IMAGE, by digest, or HEADSTART_URL and HEADSTART_SHA256_<arch>, come from install.env.
# What counts is content: the digest or checksum is part of what is wanted, and the binary is what was installed for it.
# No secret is an argument of a program, which every user of the node could read.
set -euo pipefail
umask 077

readonly path=/usr/local/bin/headstart-agent
# HEADSTART_ROOT is for tests.
readonly root=${HEADSTART_ROOT:-}
readonly bin=$root$path
readonly state=$root/usr/local/lib/headstart/source
readonly providers=$root/etc/eks/image-credential-provider
readonly registries=$root/etc/containerd/certs.d
wanted=${HEADSTART_IMAGE:-${HEADSTART_URL:-}}
work=

say() { echo "headstart: $*" >&2; }

cleanup() {
  [ -n "$work" ] || return 0
  if mountpoint -q "$work/root" 2>/dev/null; then
    ctr --namespace k8s.io images unmount --rm "$work/root" >/dev/null 2>&1 || umount "$work/root" || true
  fi
  rm -rf --one-file-system "$work"
}

# credentials IMAGE prints user:password from the kubelet's own credential provider, or nothing.
credentials() {
  local image=$1 host=${1%%/*} provider pattern name
  [ -r "$providers/config.json" ] && command -v jq >/dev/null || return 0
  while read -r provider; do
    while read -r pattern; do
      # shellcheck disable=SC2053 # the right side is a pattern
      [[ $host == ${pattern%%/*} ]] || continue
      name=$(jq -r .name <<<"$provider")
      [ -x "$providers/$name" ] || continue
      local -a env args
      mapfile -t env < <(jq -r '.env // [] | .[] | "\(.name)=\(.value)"' <<<"$provider")
      mapfile -t args < <(jq -r '.args // [] | .[]' <<<"$provider")
      jq -nc --arg image "${image%%@*}" --arg version "$(jq -r .apiVersion <<<"$provider")" \
        '{apiVersion: $version, kind: "CredentialProviderRequest", image: $image}' |
        timeout 60 env "${env[@]}" "$providers/$name" "${args[@]}" |
        jq -r '[.auth // {} | .[] | "\(.username):\(.password)"][0] // empty'
      return
    done < <(jq -r '.matchImages[]' <<<"$provider")
  done < <(jq -c '.providers[]' "$providers/config.json")
}

# hosts HOST writes containerd's folder of registries, with the credentials of stdin for HOST: a file that only root reads.
# A HOST that is configured already goes by mirrors, which have credentials of their own.
hosts() {
  local secret
  IFS= read -r secret || true
  mkdir "$work/hosts"
  [ ! -d "$registries" ] || cp -R "$registries/." "$work/hosts/"
  [ -n "$secret" ] && [ ! -e "$work/hosts/$1" ] || return 0
  mkdir "$work/hosts/$1"
  printf 'server = "https://%s"\n\n[header]\nauthorization = "Basic %s"\n' "$1" "$(printf %s "$secret" | base64 -w 0)" \
    >"$work/hosts/$1/hosts.toml"
}

# regular ROOT PATH says whether PATH is a file below ROOT that no symlink leads to: one of an image leads out of it, into
# the node's own files.
regular() {
  local at=$1 part
  local -a parts
  IFS=/ read -ra parts <<<"${2#/}"
  for part in "${parts[@]}"; do
    at=$at/$part
    [ ! -L "$at" ] || return 1
  done
  [ -f "$at" ]
}

from_image() {
  case $wanted in
    *@sha256:????????????????????????????????????????????????????????????????) ;;
    *) say "HEADSTART_IMAGE names no digest: write NAME@sha256:..."; return 1 ;;
  esac
  credentials "$wanted" >"$work/secret" || say "the credential provider failed; trying without"
  hosts "${wanted%%/*}" <"$work/secret"
  # containerd checks all that it pulls against the digest.
  timeout 240 ctr --namespace k8s.io images pull --hosts-dir "$work/hosts" "$wanted" >/dev/null
  rm -rf "$work/hosts" "$work/secret"
  mkdir "$work/root"
  timeout 60 ctr --namespace k8s.io images mount "$wanted" "$work/root" >/dev/null
  regular "$work/root" "$path" || { say "$wanted has no regular file $path"; return 1; }
  cp --no-dereference "$work/root$path" "$work/agent"
}

# checksum prints the one that the binary of HEADSTART_URL must have.
checksum() {
  case $(uname -m) in
    x86_64) echo "${HEADSTART_SHA256_amd64:-}" ;;
    aarch64) echo "${HEADSTART_SHA256_arm64:-}" ;;
  esac
}

sum_of() { sha256sum <"$1" | cut -d ' ' -f 1; }

from_url() {
  local arch sum
  case $(uname -m) in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    *) say "no agent for $(uname -m)"; return 1 ;;
  esac
  sum=$(checksum)
  [ -n "$sum" ] || { say "no checksum for $arch"; return 1; }
  curl --fail --silent --show-error --location --proto =https --retry 5 --max-time 240 \
    --output "$work/agent" "${wanted//\{arch\}/$arch}"
  [ "$(sum_of "$work/agent")" = "$sum" ] || { say "checksum of $wanted differs"; return 1; }
}

[ -n "$wanted" ] || { say "install.env names no source"; exit 1; }
key=$wanted
[ -n "${HEADSTART_IMAGE:-}" ] || key="$wanted $(checksum)"
# The second line is the sum of what was installed: a binary that somebody else has put there is replaced.
if [ -f "$bin" ] && [ -x "$bin" ] && [ "$(cat "$state" 2>/dev/null)" = "$key"$'\n'"$(sum_of "$bin")" ]; then
  exit 0
fi
(umask 022 && mkdir -p "${bin%/*}" "${state%/*}")
trap cleanup EXIT
work=$(mktemp -d "${state%/*}/fetch.XXXXXX")
if [ -n "${HEADSTART_IMAGE:-}" ]; then from_image; else from_url; fi
chmod 0755 "$work/agent"
printf '%s\n%s\n' "$key" "$(sum_of "$work/agent")" >"$work/source"
# One rename: a reader sees the old binary or the new one. -T: never into a folder of that name.
mv -fT "$work/agent" "$bin"
mv -fT "$work/source" "$state"
if command -v restorecon >/dev/null; then restorecon "$bin" || true; fi
say "installed $wanted"
