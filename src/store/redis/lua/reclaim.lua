-- Gives back leases of this process that it knows nothing of: it never got the answer that gave them. ARGV from 4 on: the
-- jobs that it knows to hold here. Answers how many lanes the ring holds, and when something happens by itself next.
local known = {}
for at = COMMON + 1, #ARGV do known[ARGV[at]] = true end
for _, member in ipairs(call('ZRANGEBYLEX', OWNED, '[' .. me, '(' .. me .. '\255\255', 'LIMIT', 0, 2000)) do
  local id = member:sub(#me + 1)
  local held = not known[id] and held_by(id)
  if held and held[2] == me then give_back(id, held) end
end
finish()
return { S[S_RING], next_timer() }
