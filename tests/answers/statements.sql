-- Statements and what they show, in brackets. A blank line ends one. Where the two dialects differ, the oracle's own text follows
-- `-- oracle:`. Rows are compared in order where the statement says ORDER BY on all of it, marked [ordered], else as a bag.

-- [count]
select count(*) from wiki

-- [count, filter, term]
select count(*) from wiki where channel = '#en.wikipedia'

-- [count, filter, boolean]
select count(*) from wiki where isRobot
-- oracle: select count(*) from wiki where "isRobot"

-- [count, filter, not]
select count(*) from wiki where not isRobot and not isMinor

-- [count, is null]
select count(*) from wiki where countryName is null

-- [count, is not null, distinct aggregate]
select count(cityName), count(distinct cityName), count(distinct countryName) from wiki where cityName is not null

-- [group by, order by, limit, ordered]
select channel, count(*) as edits from wiki group by channel order by edits desc, channel limit 10

-- [group by, ordinals, ordered]
select namespace, count(*) from wiki group by 1 order by 2 desc, 1 limit 20

-- [group by two, sum, min, max, ordered]
select channel, isRobot, sum(added) as a, sum(deleted) as d, min(delta), max(delta) from wiki group by channel, isRobot order by channel, isRobot

-- [avg, group by, having, ordered]
select channel, avg(added) as mean, count(*) as n from wiki group by channel having count(*) > 500 order by n desc

-- [range, numbers]
select count(*), sum(delta) from wiki where delta > 1000

-- [range, between]
select count(*), min(added), max(added) from wiki where added between 100 and 200

-- [range, negative]
select page, delta from wiki where delta < -400

-- [in]
select channel, count(*) from wiki where channel in ('#de.wikipedia', '#fr.wikipedia', '#it.wikipedia') group by channel

-- [not in]
select count(*) from wiki where namespace not in ('Main', 'User', 'Talk')

-- [in, numbers]
select added, count(*) from wiki where added in (1, 2, 3, 5, 8, 13) group by added order by added

-- [like, prefix, ordered]
select page from wiki where page like 'Wikipedia:A%' order by page, _offset, _partition limit 50
-- oracle: select page from wiki where page like 'Wikipedia:A%' order by page limit 50

-- [like, infix]
select count(*) from wiki where comment like '%revert%'

-- [ilike]
select count(*) from wiki where comment ilike '%REVERT%'

-- [not like]
select count(*) from wiki where page not like '%:%' and channel = '#en.wikipedia'

-- [regular expression]
select count(*) from wiki where page ~ '^User talk:[0-9]+\.'
-- oracle: select count(*) from wiki where regexp_matches(page, '^User talk:[0-9]+\.')

-- [regular expression, any case]
select count(*) from wiki where comment ~* 'typo|spelling'
-- oracle: select count(*) from wiki where regexp_matches(comment, 'typo|spelling', 'i')

-- [top-k, ordered]
select page, added from wiki order by added desc, page limit 25

-- [top-k, two keys, ordered]
select channel, user, delta from wiki order by delta, channel, user limit 30
-- oracle: select channel, "user", delta from wiki order by delta, channel, "user" limit 30

-- [top-k, nulls first, ordered]
select metroCode, page from wiki order by metroCode desc nulls last, page limit 15

-- [offset, ordered]
select page, added from wiki where added > 1000 order by added desc, page limit 10 offset 20

-- [distinct]
select distinct channel from wiki

-- [distinct two]
select distinct channel, namespace from wiki where isNew

-- [distinct, order by, limit, ordered]
select distinct namespace from wiki order by namespace limit 12

-- [soft keyword, group by, ordered]
select user, count(*) as n from wiki group by user order by n desc, user limit 10
-- oracle: select "user", count(*) as n from wiki group by "user" order by n desc, "user" limit 10

-- [expression, case, group by]
select case when delta > 0 then 'more' when delta < 0 then 'less' else 'same' end as change, count(*) from wiki group by 1

-- [arithmetic]
select sum(added - deleted), sum(delta), sum(added * 2 + 1) from wiki

-- [arithmetic in filter]
select count(*) from wiki where added - deleted <> delta

-- [text functions, ordered]
select lower(channel) as c, length(page) as l, upper(namespace) as u from wiki where length(page) > 120 order by c, l, u, page

-- [text concatenation]
select distinct channel || '/' || namespace from wiki where isUnpatrolled

-- [coalesce, group by, ordered]
select coalesce(countryName, 'nowhere') as country, count(*) as n from wiki group by 1 order by n desc, country limit 10

-- [substring, group by, ordered]
select substr(channel, 2, 2) as language, sum(added) as a from wiki group by language order by a desc, language limit 15

-- [time, cast, date_trunc, ordered]
select date_trunc('day', time::timestamp) as day, count(*) from wiki group by day order by day
-- oracle: select date_trunc('day', "time"::timestamp) as day, count(*) from wiki group by day order by day

-- [time, range on text]
select count(*) from wiki where time >= '2015-09-12T00:00:00.000Z' and time < '2015-09-13T00:00:00.000Z'

-- [time, range on cast]
select count(*) from wiki where time::timestamp between timestamp '2015-09-12 00:00:00' and timestamp '2015-09-13 00:00:00'

-- [time, extract]
select extract(day from time::timestamp) as d, count(*) from wiki group by 1

-- [cast to text]
select added::text, count(*) from wiki where added < 10 group by 1

-- [cast to double, ordered]
select channel, sum(added::double) / count(*) as mean from wiki group by channel order by channel

-- [document path, ordered]
select _doc->>'page' as p, (_doc->>'added')::bigint + 1 as a from wiki where (_doc->>'added')::double > 5000 order by p, a
-- oracle: select page as p, added + 1 as a from wiki where added > 5000 order by p, a

-- [document path, boolean]
select count(*) from wiki where (_doc->>'isNew')::boolean
-- oracle: select count(*) from wiki where "isNew"

-- [empty result]
select page from wiki where channel = '#nowhere.wikipedia'

-- [aggregate of nothing]
select count(*), sum(added), max(page) from wiki where added < 0 and deleted < 0

-- [or across paths]
select count(*) from wiki where channel = '#ko.wikipedia' or namespace = 'Draft' or delta > 20000

-- [and or not]
select count(*) from wiki where (channel = '#en.wikipedia' and not (isRobot or isMinor)) or (countryName = 'Italy' and added > 100)

-- [null logic]
select count(*) from wiki where not (countryName = 'Italy')

-- [is distinct from]
select count(*) from wiki where countryName is distinct from 'Italy'

-- [subquery in]
select count(*) from wiki where page in (select page from wiki where isNew and channel = '#vi.wikipedia')

-- [subquery, scalar]
select count(*) from wiki where added > (select avg(added) from wiki)

-- [subquery, exists, correlated]
select count(*) from wiki a where exists (select 1 from wiki b where b.page = a.page and b.delta < -100 and b.channel = a.channel)

-- [subquery in from, ordered]
select n, count(*) as users from (select user, count(*) as n from wiki group by user) as t group by n order by n
-- oracle: select n, count(*) as users from (select "user", count(*) as n from wiki group by "user") as t group by n order by n

-- [common table expression, ordered]
with busy as (select channel, count(*) as n from wiki group by channel having count(*) > 1000) select channel, n from busy order by n desc

-- [common table expression, join, ordered]
with t as (select channel, max(added) as top from wiki group by channel) select w.channel, w.page, w.added from wiki w join t on w.channel = t.channel and w.added = t.top where w.added > 2000 order by w.added desc, w.page

-- [self join]
select count(*) from wiki a join wiki b on a.page = b.page and a.channel = b.channel where a.added > b.added

-- [left join, ordered]
select c.channel, x.n from (select distinct channel from wiki) c left join (select channel, count(*) as n from wiki where delta < -300 group by channel) x on x.channel = c.channel order by c.channel

-- [union all]
select 'new' as what, count(*) from wiki where isNew union all select 'robot', count(*) from wiki where isRobot

-- [union]
select channel from wiki where isNew union select channel from wiki where isRobot

-- [except]
select channel from wiki except select channel from wiki where isRobot

-- [intersect]
select namespace from wiki where channel = '#de.wikipedia' intersect select namespace from wiki where channel = '#en.wikipedia'

-- [window, ordered]
select channel, n, rank() over (order by n desc) as r from (select channel, count(*) as n from wiki group by channel) t order by r, channel limit 10

-- [filter in aggregate]
select count(*) filter (where isRobot) as robots, sum(added) filter (where not isRobot) as a from wiki

-- [count distinct, group by, ordered]
select channel, count(distinct page) as pages from wiki group by channel order by pages desc, channel limit 10

-- [min max of text]
select min(page), max(page), min(time), max(time) from wiki
-- oracle: select min(page), max(page), min("time"), max("time") from wiki

-- [nested path, group by, ordered]
select type, count(*) as n from github group by type order by n desc

-- [nested path, top, ordered]
select repo.name as r, count(*) as n from github group by repo.name order by n desc, r limit 15

-- [nested path, filter, ordered]
select actor.login, repo.name, created_at from github where payload.action = 'published' order by actor.login, repo.name, created_at
-- oracle: select actor.login, repo.name, created_at from github where payload.action = 'published' order by actor.login, repo.name, created_at

-- [nested path, distinct]
select count(distinct actor.login), count(distinct repo.id) from github

-- [deep path]
select payload.pull_request.base.repo.language as l, count(*) from github where payload.pull_request.base.repo.language is not null group by 1

-- [deep path, aggregates, ordered]
select payload.pull_request.base.repo.language as l, sum(payload.pull_request.additions) as a, avg(payload.pull_request.changed_files) as f from github where type = 'PullRequestEvent' group by 1 order by a desc, l limit 8

-- [exact id]
select type, actor.login from github where id = '2489368070'

-- [ids in]
select id, type from github where id in ('2489368070', '2489368072', '1')

-- [number id]
select count(*), min(id), max(id) from github where actor.id = 9152315

-- [path with null, is null]
select count(*) from github where payload.action is null and type <> 'PushEvent'

-- [boolean path, group by]
select payload.pull_request.merged, count(*) from github where type = 'PullRequestEvent' group by 1

-- [array index]
select payload.commits[0].author.name as a, count(*) as n from github where payload.commits[0].author.name like 'A%' group by 1
-- oracle: select payload.commits[1].author.name as a, count(*) as n from github where payload.commits[1].author.name like 'A%' group by 1

-- [array index, document path, ordered]
select _doc->'payload'->'commits'->0->>'sha' as s from github where type = 'PushEvent' order by s limit 20
-- oracle: select payload.commits[1].sha as s from github where type = 'PushEvent' order by s limit 20

-- [case, nested, ordered]
select case when actor.login like '%bot%' then 'bot' else 'person' end as who, type, count(*) from github group by 1, 2 order by 1, 2

-- [time series, nested, ordered]
select date_trunc('minute', created_at::timestamp) as m, type, count(*) as n from github where type in ('PushEvent', 'WatchEvent') group by 1, 2 order by 1, 2

-- [date_bin, ordered]
select date_bin(interval '10 minutes', created_at::timestamp, timestamp '2015-01-01 00:00:00') as m, count(*) from github group by 1 order by 1
-- oracle: select time_bucket(interval '10 minutes', created_at::timestamp, timestamp '2015-01-01 00:00:00') as m, count(*) from github group by 1 order by 1

-- [join of nested, ordered]
select f.repo.name as r, count(*) as n from github f join github w on f.repo.id = w.repo.id where f.type = 'ForkEvent' and w.type = 'WatchEvent' group by 1 order by n desc, r limit 10
-- oracle: select f.repo."name" as r, count(*) as n from github f join github w on f.repo.id = w.repo.id where f.type = 'ForkEvent' and w.type = 'WatchEvent' group by 1 order by n desc, r limit 10

-- [subquery in, nested]
select count(*) from github where actor.id in (select payload.issue.user.id from github where type = 'IssuesEvent')
-- oracle: select count(*) from github where actor.id in (select payload.issue."user".id from github where type = 'IssuesEvent')

-- [not in subquery]
select count(*) from github where type = 'WatchEvent' and actor.id not in (select actor.id from github where type = 'PushEvent')

-- [org, missing objects, ordered]
select org.login as o, count(*) as n from github where org.login is not null group by 1 order by n desc, o limit 10

-- [sum of nothing in groups, ordered]
select type, sum(payload.size), avg(payload.distinct_size) from github group by type order by type

-- [round, arithmetic, ordered]
select type, round(count(*) * 100.0 / 15129, 2) as percent from github group by type order by percent desc, type

-- [long text, length, ordered]
select length(payload.comment.body) as l, id from github where payload.comment.body is not null order by l desc, id limit 10

-- [long text, like]
select count(*) from github where payload.comment.body like '%LGTM%'

-- [starts_with]
select count(*) from github where starts_with(repo.name, 'google/')

-- [or of nested]
select count(*) from github where payload.ref_type = 'tag' or payload.issue.state = 'closed'

-- [search in sql, words]
select count(*) from github where search('type:PushEvent AND payload.ref:master')
-- oracle: select count(*) from github where type = 'PushEvent' and regexp_matches(payload.ref, '(^|[^a-zA-Z0-9])[mM][aA][sS][tT][eE][rR]([^a-zA-Z0-9]|$)')

-- [search in sql, with filter and group]
select type, count(*) from github where search('payload.action:opened') and payload.issue.comments = 0 group by type
-- oracle: select type, count(*) from github where payload.action = 'opened' and payload.issue.comments = 0 group by type

-- [double, sum, ordered]
select currency, count(*), sum(taxful_total_price), avg(taxful_total_price), min(taxful_total_price), max(taxful_total_price) from orders group by currency order by currency

-- [double, range]
select count(*) from orders where taxful_total_price >= 100 and taxful_total_price < 150.5

-- [double, equality]
select count(*) from orders where taxful_total_price = 36.98

-- [group by text, having on sum, ordered]
select day_of_week, round(sum(taxful_total_price), 2) as total from orders group by day_of_week having sum(total_quantity) > 10 order by day_of_week

-- [nested object path, ordered]
select geoip.country_iso_code as c, count(*) as n from orders group by 1 order by n desc, c

-- [deep number, range]
select count(*) from orders where geoip.location.lat > 40 and geoip.location.lon < 0

-- [array index scalar, ordered]
select manufacturer[0] as m, count(*) as n from orders group by 1 order by n desc, m limit 12
-- oracle: select manufacturer[1] as m, count(*) as n from orders group by 1 order by n desc, m limit 12

-- [array of objects by index, ordered]
select products[0].category as c, sum(products[0].price) as p from orders group by 1 order by c
-- oracle: select products[1].category as c, sum(products[1].price) as p from orders group by 1 order by c

-- [array index beyond]
select count(*) from orders where products[3].sku is not null
-- oracle: select count(*) from orders where products[4].sku is not null

-- [time with offset, ordered]
select date_trunc('month', order_date::timestamp) as m, count(*), sum(total_quantity) from orders group by 1 order by 1
-- oracle: select date_trunc('month', (order_date::timestamptz at time zone 'UTC')) as m, count(*), sum(total_quantity) from orders group by 1 order by 1

-- [many aggregates]
select count(*), count(distinct customer_id), sum(total_quantity), avg(total_unique_products), stddev(taxful_total_price) from orders

-- [median, group by, ordered]
select customer_gender, median(taxful_total_price) from orders group by customer_gender order by customer_gender

-- [nullif, coalesce]
select count(nullif(customer_phone, '')), count(customer_phone) from orders

-- [empty string]
select count(*) from orders where customer_phone = ''

-- [division by zero is null]
select count(*), count(1 / (total_quantity - 2)) from orders
-- oracle: select count(*), count(case when total_quantity <> 2 then 1 end) from orders

-- [integer arithmetic, ordered]
select total_quantity % 2 as odd, count(*) from orders group by 1 order by 1

-- [greatest and least]
select sum(greatest(total_quantity, 3)), sum(least(total_quantity, 3)) from orders

-- [window over partition, ordered]
select day, order_id, price from (select day_of_week as day, order_id, taxful_total_price as price, row_number() over (partition by day_of_week order by taxful_total_price desc, order_id) as r from orders) t where r <= 2 order by day, r

-- [self join with aggregate, ordered]
select a.customer_full_name, count(*) as n from orders a join orders b on a.customer_id = b.customer_id and a.order_id < b.order_id group by 1 order by n desc, 1 limit 10

-- [join of two collections, ordered]
select w.countryName as c, count(distinct o.order_id) as orders, count(distinct w.page) as pages from orders o join wiki w on w.countryIsoCode = o.geoip.country_iso_code where w.isNew group by 1 order by 1

-- [same path in many kinds, text]
select eventName, count(*) as n from trail group by eventName order by n desc, eventName limit 10
-- oracle: select doc->>'$.eventName' as e, count(*) as n from trail_raw group by e order by n desc, e limit 10

-- [key with a dot or colon, ordered]
select userIdentity.type as t, count(*) as n from trail group by 1 order by n desc, t
-- oracle: select doc->>'$.userIdentity.type' as t, count(*) as n from trail_raw group by t order by n desc, t

-- [quoted odd key]
select count(*) from trail where additionalEventData."x-amz-id-2" is not null
-- oracle: select count(*) from trail_raw where doc->>'$.additionalEventData."x-amz-id-2"' is not null

-- [error codes, ordered]
select errorCode, count(*) as n, min(eventTime), max(eventTime) from trail where errorCode is not null group by 1 order by n desc, 1
-- oracle: select doc->>'$.errorCode' as c, count(*) as n, min(doc->>'$.eventTime'), max(doc->>'$.eventTime') from trail_raw where doc->>'$.errorCode' is not null group by 1 order by n desc, 1

-- [boolean and text]
select eventSource, count(*) from trail where readOnly and managementEvent group by eventSource
-- oracle: select doc->>'$.eventSource', count(*) from trail_raw where (doc->>'$.readOnly')::boolean and (doc->>'$.managementEvent')::boolean group by 1

-- [prefix on deep path]
select count(*) from trail where userIdentity.arn like 'arn:aws:iam::%:user/%'
-- oracle: select count(*) from trail_raw where doc->>'$.userIdentity.arn' like 'arn:aws:iam::%:user/%'

-- [cast of text number]
select count(*), max((recipientAccountId)::bigint) from trail
-- oracle: select count(*), max((doc->>'$.recipientAccountId')::bigint) from trail_raw

-- [object is not null]
select count(*) from trail where requestParameters is not null
-- oracle: select count(*) from trail_raw where json_type(doc, '$.requestParameters') <> 'NULL'

-- [any case of names]
select EVENTSOURCE, count(*) from trail where eventsource = 's3.amazonaws.com' group by 1
-- oracle: select doc->>'$.eventSource', count(*) from trail_raw where doc->>'$.eventSource' = 's3.amazonaws.com' group by 1

-- [text minutes, ordered]
select substr(eventTime, 1, 13) as hour, count(*) from trail group by 1 order by 1
-- oracle: select substr(doc->>'$.eventTime', 1, 13) as hour, count(*) from trail_raw group by 1 order by 1

-- [join on deep path, ordered]
select a.userIdentity.userName as u, count(*) as n from trail a where a.userIdentity.userName in (select b.userIdentity.userName from trail b where b.errorCode = 'AccessDenied') group by 1 order by n desc, u
-- oracle: select doc->>'$.userIdentity.userName' as u, count(*) as n from trail_raw where doc->>'$.userIdentity.userName' in (select doc->>'$.userIdentity.userName' from trail_raw where doc->>'$.errorCode' = 'AccessDenied') group by 1 order by n desc, u

-- [search in sql, phrase]
select count(*) from trail where search('errorMessage:"is not authorized to perform"')
-- oracle: select count(*) from trail_raw where regexp_matches(doc->>'$.errorMessage', '(^|[^a-zA-Z0-9])is not authorized to perform([^a-zA-Z0-9]|$)', 'i')

-- [no column is read, constants]
select 1 as one, 'x' as letter from wiki where delta > 5000

-- [no column is read, cross join]
select count(*) from wiki a, (select 1 as one) b

-- [no column is read, cross join of two]
select count(*), min(b.delta) from (select 1 as one from wiki where delta > 20000) a cross join (select delta from wiki where delta > 20000) b

-- [no column is read, exists]
select count(*) from wiki where exists (select 1 from wiki where delta > 5000) and added > 5000

-- [no column is read, limit]
select count(*) from (select channel as q from wiki where added > 100 limit 30) z

-- [no column is read, union all]
select 'robot' as who from wiki where isRobot and delta > 5000 union all select 'somebody' from wiki where not isRobot and delta > 5000
-- oracle: select 'robot' as who from wiki where "isRobot" and delta > 5000 union all select 'somebody' from wiki where not "isRobot" and delta > 5000

-- [no column is read, left join]
select count(*) from (select 1 as one from wiki where delta > 5000) a left join (select 2 as two from wiki where delta > 50000) b on true
