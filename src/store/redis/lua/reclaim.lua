-- Gives back leases of this process that it knows nothing of: it never got the answer that gave them. ARGV: 4 where the walk
-- through the leases goes on (0 at first), then the jobs that it knows to hold here. Answers how many lanes the ring holds, when
-- something happens by itself next, and where the walk goes on (0 at its end).
local known = {}
for at = COMMON + 2, #ARGV do known[ARGV[at]] = true end
local found = call('HSCAN', HELD, ARGV[4], 'COUNT', WALKED)
for at = 1, #found[2], 2 do
  local id = found[2][at]
  local held = not known[id] and held_of(id, found[2][at + 1])
  if held and held[2] == me then give_back(id, held) end
end
finish()
return { S[S_RING], next_timer(), found[1] }
