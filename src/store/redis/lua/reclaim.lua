-- Gives back leases of this process that it knows nothing of: it never got the answer that gave them. ARGV from 4 on: the
-- jobs that it knows to hold here. Answers how many lanes the ring holds, when something happens by itself next, and
-- whether to call again at once.
local STEP = 200
local known, given_back = {}, 0
for at = COMMON + 1, #ARGV do known[ARGV[at]] = true end
-- Those that are known stay, so that as many more are looked at.
for _, member in ipairs(call('ZRANGEBYLEX', OWNED, '[' .. me, '(' .. me .. '\255\255', 'LIMIT', 0, #ARGV - COMMON + STEP)) do
  local id = member:sub(#me + 1)
  local held = not known[id] and held_by(id)
  if held and held[2] == me then
    give_back(id, held)
    given_back = given_back + 1
  end
end
finish()
return { S[S_RING], next_timer(), given_back >= STEP and 1 or 0 }
