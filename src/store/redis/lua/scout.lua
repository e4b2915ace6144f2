-- Tells of each lane of ARGV from 4 on whether it takes jobs: 1, 0 when it is closed, -1 when it is not known here.
local answer = {}
for at = COMMON + 1, #ARGV do
  local raw = call('HGET', LANES, ARGV[at])
  answer[#answer + 1] = raw and 1 - read_lane(raw)[IS_CLOSED] or -1
end
return answer
