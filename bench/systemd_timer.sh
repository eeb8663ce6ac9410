#!/usr/bin/env bash
# Lets a booted systemd's own timer run `retort retrain` as configs/deploy/ has it: in a bare Debian 12 (debootstrap, systemd-nspawn;
# as root) with the installed program, the user and the folders that the service names. Prints the service's journal and its verdict.
#   bench/systemd_timer.sh TREE [RECIPE]     # TREE is made if it is not there, and stays: a second call is the same slot again
# A timer of 02:00 whose last run was three days ago fires at boot (Persistent); only its random delay is taken out.
set -euo pipefail
cd "$(dirname "$0")/.."
tree=$1 recipe=${2:-configs/retrain/foldoc.yaml} build=build/release
if [[ ! -e $tree/etc/debian_version ]]; then
  mirror=$(awk '/^URIs:/{print $2; exit}' /etc/apt/sources.list.d/debian.sources)
  debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus bookworm "$tree" "$mirror" > "$tree.log" 2>&1
  chroot "$tree" useradd --system --home /var/lib/retort retort
fi
cmake --install $build --prefix "$tree/usr/local" > /dev/null
# What ldd names and the tree lacks.
ldd "$tree/usr/local/bin/retort" | awk '/=> \//{print $3}' | while read -r library; do
  [[ $library == "$tree"* || -e $tree/usr/lib/x86_64-linux-gnu/$(basename "$library") ]] ||
    cp -L "$library" "$tree/usr/lib/x86_64-linux-gnu/"
done
chroot "$tree" ldconfig
mkdir -p "$tree"/etc/retort "$tree"/var/cache/retort "$tree"/var/lib/systemd/timers \
  "$tree"/etc/systemd/system/{retort-retrain.timer.d,timers.target.wants}
cp "$recipe" "$tree/etc/retort/retrain.yaml"
[[ -e $tree/etc/retort/environment ]] ||
  (umask 077 && echo "RETORT_PROJECT_KEY=$(openssl rand -hex 32)" > "$tree/etc/retort/environment")
cp configs/deploy/retort-retrain.{service,timer} "$tree/etc/systemd/system/"
printf '[Timer]\nRandomizedDelaySec=0\n' > "$tree/etc/systemd/system/retort-retrain.timer.d/now.conf"
ln -sf /etc/systemd/system/retort-retrain.timer "$tree/etc/systemd/system/timers.target.wants/"
touch -d "3 days ago" "$tree/var/lib/systemd/timers/stamp-retort-retrain.timer"
# Sources that this machine has need no network there.
cp -r "${RETORT_CACHE:-$HOME/.cache/retort}"/{blobs,index} "$tree/var/cache/retort/"

systemd-nspawn --register=no --keep-unit -b -D "$tree" > "$tree.boot" 2>&1 &
trap 'kill %1 2> /dev/null || true' EXIT
inside() { nsenter -t "$(pgrep -P "$(pgrep -f "systemd-nspawn.*$tree" | head -n 1)" | head -n 1)" -m -p -u -i -n "$@"; }
until [[ -n $(inside systemctl show -P ExecMainExitTimestamp retort-retrain.service 2> /dev/null) ]]; do
  kill -0 %1 || { tail -n 20 "$tree.boot"; exit 1; }
  sleep 2
done
inside systemctl show -p ActiveState,ExecMainStatus retort-retrain.service
inside journalctl -b -u retort-retrain.service -u retort-retrain.timer --no-pager -o cat
inside systemctl list-timers retort-retrain.timer --no-pager
inside systemctl poweroff
wait %1
