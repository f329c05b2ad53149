# Devices, addresses and routes of the two tunnels.
sudo ip link add Tunnel1 type vti local 3.36.6.148 remote 43.200.198.51 key 100
sudo ip link add Tunnel2 type vti local 3.36.6.148 remote 43.203.78.35 key 200
sudo ip addr add 169.254.216.30/30 remote 169.254.216.29/30 dev Tunnel1
sudo ip addr add 169.254.123.170/30 remote 169.254.123.169/30 dev Tunnel2
sudo ip link set Tunnel1 up mtu 1419
sudo ip link set Tunnel2 up mtu 1419
for_the_first=1 ; sudo ip route add 10.10.0.0/16 dev Tunnel1 metric 100
sudo ip route add 10.10.0.0/16 dev Tunnel2 metric 200
sudo ip route add 10.20.0.0/16 dev Tunnel1 metric 100
sudo ip route add 10.20.0.0/16 dev Tunnel2 metric 200
sudo iptables -t mangle -A FORWARD -o Tunnel1 -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
