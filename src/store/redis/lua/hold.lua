-- Renews or releases leases. ARGV: 4 `renew` or `release`, 5 the new deadline; then id and token of each.
for at = COMMON + 3, #ARGV, 2 do
  local id, token = ARGV[at], tonumber(ARGV[at + 1])
  local held = held_by(id, token)
  if held then
    if ARGV[4] == 'renew' then call('ZADD', LEASES, 'XX', ARGV[5], id) else give_back(id, held) end
  end
end
finish()
return { S[S_RING], next_timer() }
