-- Renews or releases leases. ARGV: 4 `renew` or `release`, 5 the new deadline; then id and token of each.
local deadline = tonumber(ARGV[5])
for at = COMMON + 3, #ARGV, 2 do
  local id, token = ARGV[at], tonumber(ARGV[at + 1])
  local held = held_by(id, token)
  if held then
    if ARGV[4] == 'renew' then
      call('HSET', HELD, id, pack_held(token, held[3], deadline, held[4]))
      note_end(deadline)
    else
      give_back(id, held)
    end
  end
end
finish()
return { S[S_RING], next_timer() }
